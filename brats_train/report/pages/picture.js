"use strict";
// What the pages with pictures of a scan share: outlines, letters, the scale, samples of colours.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const rgb = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

// The edges between pixels inside and outside, as a path in units of pixels. Every edge is drawn
// but for `gap` at both ends, so that a line of dashes lets another one be seen below it.
function outline(isInside, width, height, gap) {
  const path = new Path2D();
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && isInside(x, y);
  for (let y = 0; y <= height; y++)
    for (let x = 0; x <= width; x++) {
      const here = at(x, y);
      if (here !== at(x, y - 1)) { path.moveTo(x + gap, y); path.lineTo(x + 1 - gap, y); }
      if (here !== at(x - 1, y)) { path.moveTo(x, y + gap); path.lineTo(x, y + 1 - gap); }
    }
  return path;
}

// White letters with a black edge, which are read on every grey. `ratio` is canvas pixels a CSS one.
function write(pen, ratio, text, x, y, size, align, base) {
  pen.font = `600 ${size * ratio}px system-ui, sans-serif`;
  pen.textAlign = align;
  pen.textBaseline = base;
  pen.lineWidth = 3 * ratio;
  pen.strokeStyle = "#000000";
  pen.strokeText(text, x, y);
  pen.fillStyle = "#ffffff";
  pen.fillText(text, x, y);
}

// A bar of a round length, at most `most` canvas pixels, that ends at (right, bottom).
function drawScale(pen, ratio, pixelsPerMm, most, right, bottom) {
  const mm = [1, 2, 5, 10, 20, 50, 100].findLast((one) => one * pixelsPerMm <= most) ?? 1;
  const length = mm * pixelsPerMm;
  pen.fillStyle = "#000000";
  pen.fillRect(right - length - ratio, bottom - 4 * ratio, length + 2 * ratio, 5 * ratio);
  pen.fillStyle = "#ffffff";
  pen.fillRect(right - length, bottom - 3 * ratio, length, 3 * ratio);
  write(pen, ratio, mm < 10 ? `${mm} mm` : `${mm / 10} cm`, right, bottom - 6 * ratio, 13, "right", "bottom");
}

// A sample of a colour: an area, or the line of an outline.
function keyOf(kind, color) {
  const sample = document.createElement("span");
  sample.className = `key ${kind}`;
  sample.style.color = color;
  return sample;
}

// A sample of a colour and its name.
function addKey(place, kind, color, name) {
  const entry = document.createElement("span");
  entry.append(keyOf(kind, color), ` ${name}`);
  place.append(entry);
}

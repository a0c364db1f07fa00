"use strict";
// The slice browser. The table of cases is sorted by table.js.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// ---- Slice browser -----------------------------------------------------------------------------

const dialog = byId("browser");
const canvas = byId("slice");
const state = { number: 0, slice: 0, modality: data.modalities[0], region: 0 };
const sheets = new Map(); // address of a sheet of slices -> promise of its image
const masks = new Map(); // number of a case -> (slices, rows, columns) bytes
let drawing = 0;

// Run-length code: pairs of a value and a count, counts in groups of seven bits, lowest first.
function decoded(text, length) {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const out = new Uint8Array(length);
  for (let at = 0, place = 0; at < bytes.length; ) {
    const value = bytes[at++];
    let count = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      count += (byte & 127) * 2 ** shift;
      if (byte < 128) break;
    }
    out.fill(value, place, (place += count));
  }
  return out;
}

function masksOf(number) {
  const one = data.cases[number];
  if (!masks.has(number))
    masks.set(number, decoded(one.masks, one.z_indices.length * one.height * one.width));
  return masks.get(number);
}

function sheetOf(address) {
  if (!sheets.has(address)) {
    const image = new Image();
    sheets.set(address, new Promise((resolve, reject) => {
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error("a sheet of slices cannot be decoded"));
    }));
    image.src = address;
  }
  return sheets.get(address);
}

// The edges between pixels inside and outside, as a path in units of pixels. Every edge is drawn
// but for `gap` at both ends, so that a line of dashes lets another one be seen below it.
function outline(isIn, width, height, gap) {
  const path = new Path2D();
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && isIn(y * width + x);
  for (let y = 0; y <= height; y++)
    for (let x = 0; x <= width; x++) {
      const here = at(x, y);
      if (here !== at(x, y - 1)) { path.moveTo(x + gap, y); path.lineTo(x + 1 - gap, y); }
      if (here !== at(x - 1, y)) { path.moveTo(x, y + gap); path.lineTo(x, y + 1 - gap); }
    }
  return path;
}

function tint(pen, isIn, width, height, color) {
  pen.fillStyle = color;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) if (isIn(y * width + x)) pen.fillRect(x, y, 1, 1);
}

async function draw() {
  const turn = ++drawing;
  const one = data.cases[state.number];
  const { width, height, aspect } = one;
  const image = await sheetOf(one.sheets[state.modality]);
  if (turn !== drawing) return; // a later call draws
  const scale = Math.max(2, Math.round(640 / height));
  canvas.width = width * scale;
  canvas.height = Math.round(height * aspect * scale);
  const shown = Math.min(1, (0.55 * window.innerHeight) / canvas.height * (window.devicePixelRatio || 1));
  canvas.style.width = `${canvas.width * shown / (window.devicePixelRatio || 1)}px`;
  canvas.style.height = "auto";
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale * aspect, 0, 0);
  pen.drawImage(image, 0, state.slice * height, width, height, 0, 0, width, height);
  const all = masksOf(state.number).subarray(
    state.slice * width * height, (state.slice + 1) * width * height);
  const isTrue = (place) => ((all[place] >> state.region) & 1) === 1;
  const isFound = (place) => ((all[place] >> (state.region + 4)) & 1) === 1;
  const [showsTruth, showsFound] = [byId("show-truth").checked, byId("show-prediction").checked];
  if (showsTruth) tint(pen, (p) => isTrue(p) && !(showsFound && isFound(p)), width, height, "#56b4e955");
  if (showsFound) tint(pen, (p) => isFound(p) && !(showsTruth && isTrue(p)), width, height, "#e69f0055");
  const paths = [];
  if (showsTruth) paths.push([outline(isTrue, width, height, 0), "#56b4e9", 0.7]);
  if (showsFound) paths.push([outline(isFound, width, height, 0.18), "#e69f00", 0.6]);
  for (const [path, color, thickness] of paths) {
    pen.strokeStyle = color;
    pen.lineWidth = thickness;
    pen.stroke(path);
  }
  canvas.dataset.drawn = String(turn);
  describe(one, showsTruth, showsFound);
}

function describe(one, showsTruth, showsFound) {
  const name = data.names[state.modality];
  const region = data.regions[state.region].toUpperCase();
  const z = one.z_indices[state.slice];
  byId("place").textContent =
    `${name}, z = ${z} of ${one.depth}, slice ${state.slice + 1} of ${one.z_indices.length}`;
  const shown = [showsTruth && `true ${region} in blue`, showsFound && `predicted ${region} in orange`];
  canvas.setAttribute("aria-label",
    [`${one.case}, ${name}, axial slice z = ${z}`, ...shown.filter(Boolean)].join(", "));
}

function choose(group, value) {
  for (const input of byId(group).querySelectorAll("input"))
    input.checked = input.value === String(value);
}

function showCase(number) {
  const count = data.cases.length;
  state.number = (number + count) % count;
  const one = data.cases[state.number];
  state.slice = one.first;
  byId("browser-case").textContent = one.case;
  byId("browser-scores").textContent = one.scores;
  const position = byId("position");
  position.max = one.z_indices.length - 1;
  position.value = state.slice;
  for (const input of byId("regions").querySelectorAll("input"))
    input.disabled = !one.known.includes(data.regions[input.value]);
  if (!one.known.includes(data.regions[state.region])) {
    state.region = data.regions.indexOf(one.known[0]);
    choose("regions", state.region);
  }
  draw();
}

function moveSlice(step) {
  const last = data.cases[state.number].z_indices.length - 1;
  state.slice = Math.min(Math.max(state.slice + step, 0), last);
  byId("position").value = state.slice;
  draw();
}

// The order in which the table stands now is the order of the browser.
function moveCase(step) {
  const order = [...document.querySelectorAll("button.case")].map((b) => Number(b.dataset.number));
  const place = order.indexOf(state.number);
  showCase(order[(place + step + order.length) % order.length]);
}

function setModality(name) { state.modality = name; choose("modalities", name); draw(); }
function setRegion(number) { state.region = number; choose("regions", number); draw(); }

function nextRegion() {
  const { known } = data.cases[state.number];
  const next = known[(known.indexOf(data.regions[state.region]) + 1) % known.length];
  setRegion(data.regions.indexOf(next));
}

function flip(id) { byId(id).checked = !byId(id).checked; draw(); }

const keys = {
  ArrowUp: () => moveSlice(1),
  ArrowDown: () => moveSlice(-1),
  PageUp: () => moveSlice(4),
  PageDown: () => moveSlice(-4),
  Home: () => moveSlice(-Infinity),
  End: () => moveSlice(Infinity),
  ArrowLeft: () => moveCase(-1),
  ArrowRight: () => moveCase(1),
  m: () => {
    const names = data.modalities;
    setModality(names[(names.indexOf(state.modality) + 1) % names.length]);
  },
  r: nextRegion,
  t: () => flip("show-truth"),
  p: () => flip("show-prediction"),
};

function addChoices(group, values, labels, set) {
  values.forEach((value, number) => {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: group, value: String(value), checked: number === 0 });
    input.addEventListener("change", () => set(value));
    label.append(input, ` ${labels[number]}`);
    byId(group).append(label);
  });
  byId(group).hidden = values.length < 2;
}

if (data.cases.length) {
  addChoices("modalities", data.modalities, data.modalities.map((m) => data.names[m]), setModality);
  addChoices("regions", data.regions.map((_, number) => number),
    data.regions.map((region) => region.toUpperCase()), setRegion);
  for (const button of document.querySelectorAll("button.case"))
    button.addEventListener("click", () => {
      dialog.showModal();
      showCase(Number(button.dataset.number));
      canvas.focus();
    });
  byId("close").addEventListener("click", () => dialog.close());
  byId("previous").addEventListener("click", () => moveCase(-1));
  byId("next").addEventListener("click", () => moveCase(1));
  byId("position").addEventListener("input", (event) => {
    state.slice = Number(event.target.value);
    draw();
  });
  for (const id of ["show-truth", "show-prediction"]) byId(id).addEventListener("change", draw);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    moveSlice(event.deltaY < 0 ? 1 : -1);
  }, { passive: false });
  // A finger drawn over the image turns the slices, as the wheel does.
  let touched = null;
  canvas.addEventListener("pointerdown", (event) => { touched = event.clientY; });
  canvas.addEventListener("pointermove", (event) => {
    if (touched === null || !event.buttons || Math.abs(event.clientY - touched) < 16) return;
    moveSlice(event.clientY < touched ? 1 : -1);
    touched = event.clientY;
  });
  canvas.addEventListener("pointerup", () => { touched = null; });
  dialog.addEventListener("keydown", (event) => {
    const act = keys[event.key] ?? keys[event.key.toLowerCase()];
    // Arrows on a slider or a radio button are that control's own.
    const isControl = event.target.matches("input[type=range], input[type=radio]");
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    if (isControl && event.key.length > 1) return;
    event.preventDefault();
    act();
  });
  window.addEventListener("resize", () => { if (dialog.open) draw(); });
}

"use strict";
// The slice browser. Outlines and letters come from picture.js, and table.js sorts the cases.

// ---- What is embedded ----------------------------------------------------------------------------

const sheets = new Map(); // address of a sheet of slices -> promise of its image
const masks = new Map(); // number of a case -> (slices, rows, columns) bytes

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

// ---- Drawing -------------------------------------------------------------------------------------

const dialog = byId("browser");
const canvas = byId("slice");
// A slice and its areas, a pixel a pixel.
const [plane, cover] = [0, 1].map(() => document.createElement("canvas"));
const penOf = (one) => one.getContext("2d", { willReadFrequently: true }); // drawn alike every time
const state = {
  number: 0, slice: 0, modality: data.modalities[0], region: 0, area: "errors",
  windows: {}, zoom: 1, middle: [0.5, 0.5], // the place of the slice in the middle of the canvas
};
let drawing = 0;

const windowOf = () => state.windows[state.modality] ?? data.cases[state.number].windows[state.modality];

// The slice with its grey values spread over the window; 0 is outside the head.
function drawGrey(image, one) {
  const { width, height } = one;
  const pen = penOf(Object.assign(plane, { width, height }));
  pen.drawImage(image, (state.slice % one.columns) * width,
    Math.floor(state.slice / one.columns) * height, width, height, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height);
  const [low, high] = windowOf();
  const shown = Uint8ClampedArray.from({ length: 256 }, (_, grey) => (255 * (grey - low)) / (high - low));
  shown[0] = 0;
  for (let at = 0; at < pixels.data.length; at += 4)
    pixels.data.fill(shown[pixels.data[at]], at, at + 3);
  pen.putImageData(pixels, 0, 0);
}

// The colour of each pixel's area, none for most. `bits` are a slice of the masks.
function areaOf(bits) {
  const { found, missed, alarm } = data.colors;
  if (state.area === "errors")
    return (place) => {
      const [isTrue, isFound] = [isIn(bits[place], 0), isIn(bits[place], 4)];
      return isTrue ? (isFound ? found : missed) : isFound ? alarm : null;
    };
  const shift = state.area === "truth" ? 0 : 4;
  const order = ["et", "tc", "wt"].map((name) => data.regions.indexOf(name) + shift);
  return (place) => {
    const inner = order.findIndex((bit) => (bits[place] >> bit) & 1);
    return inner < 0 ? null : data.tissues[inner].color;
  };
}

const isIn = (bits, shift) => ((bits >> (state.region + shift)) & 1) === 1;

function drawAreas(bits, { width, height }) {
  const pen = penOf(Object.assign(cover, { width, height }));
  const pixels = pen.createImageData(width, height);
  const colorAt = areaOf(bits);
  const stripes = new Path2D();
  for (let place = 0; place < bits.length; place++) {
    const color = colorAt(place);
    if (!color) continue;
    // What was found is seen by its outlines, and keeps the scan's own grey.
    const alpha = color === data.colors.found ? 0 : 110;
    pixels.data.set([...rgb(color), alpha], 4 * place);
    if (color === data.colors.alarm) stripes.rect(place % width, Math.floor(place / width), 1, 1);
  }
  pen.putImageData(pixels, 0, 0);
  return stripes;
}

function drawStripes(pen, path, ratio) {
  pen.save();
  pen.clip(path);
  pen.beginPath();
  for (let x = -canvas.height; x < canvas.width; x += 7 * ratio) {
    pen.moveTo(x, canvas.height);
    pen.lineTo(x + canvas.height, 0);
  }
  pen.strokeStyle = data.colors.alarm;
  pen.lineWidth = ratio;
  pen.stroke();
  pen.restore();
}

// Modality, sides of the patient and a scale, so that a picture of the canvas speaks for itself.
function drawMarks(pen, one, scale, ratio) {
  const { width, height } = canvas;
  const edge = 8 * ratio;
  write(pen, ratio, data.names[state.modality], edge, edge, 15, "left", "top");
  write(pen, ratio, `z = ${one.z_indices[state.slice]}`, width - edge, edge, 13, "right", "top");
  write(pen, ratio, "R", edge, height / 2, 17, "left", "middle");
  write(pen, ratio, "L", width - edge, height / 2, 17, "right", "middle");
  drawScale(pen, ratio, scale / one.pixel_mm[1], 0.4 * width, width - edge, height - edge);
}

async function draw() {
  const turn = ++drawing;
  const one = data.cases[state.number];
  const { width, height, pixel_mm: [dy, dx] } = one;
  const image = await sheetOf(one.sheets[state.modality]);
  if (turn !== drawing) return; // a later call draws
  const aspect = dy / dx;
  const ratio = window.devicePixelRatio || 1;
  const isWide = window.innerWidth > 900;
  const side = Math.min(byId("stage").clientWidth, (isWide ? 0.86 : 0.55) * window.innerHeight);
  canvas.style.width = canvas.style.height = `${side}px`;
  canvas.width = canvas.height = Math.round(side * ratio);
  const scale = (state.zoom * 0.97 * canvas.width) / Math.max(width, height * aspect);
  const place = new DOMMatrix([scale, 0, 0, scale * aspect,
    canvas.width / 2 - state.middle[0] * width * scale,
    canvas.height / 2 - state.middle[1] * height * scale * aspect]);
  const placed = (path) => { const moved = new Path2D(); moved.addPath(path, place); return moved; };
  const pen = penOf(canvas);
  drawGrey(image, one);
  pen.setTransform(place);
  pen.drawImage(plane, 0, 0);
  const size = width * height;
  const bits = masksOf(state.number).subarray(state.slice * size, (state.slice + 1) * size);
  const [showsTruth, showsFound] = [byId("show-truth").checked, byId("show-prediction").checked];
  let stripes = new Path2D();
  if (state.area !== "none") {
    stripes = drawAreas(bits, one);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(cover, 0, 0);
    pen.imageSmoothingEnabled = true;
  }
  pen.resetTransform();
  drawStripes(pen, placed(stripes), ratio);
  const insideOf = (shift) => (x, y) => isIn(bits[y * width + x], shift);
  const paths = [];
  if (showsTruth)
    paths.push([outline(insideOf(0), width, height, 0), data.colors.truth, 2.2]);
  if (showsFound)
    paths.push([outline(insideOf(4), width, height, 0.18), data.colors.prediction, 2]);
  for (const [path, color, thickness] of paths) {
    pen.strokeStyle = color;
    pen.lineWidth = thickness * ratio;
    pen.stroke(placed(path));
  }
  drawMarks(pen, one, scale, ratio);
  canvas.dataset.drawn = String(turn);
  describe(one, showsTruth, showsFound);
}

function describe(one, showsTruth, showsFound) {
  const name = data.names[state.modality];
  const region = data.region_names[data.regions[state.region]];
  const z = one.z_indices[state.slice];
  const count = one.z_indices.length;
  byId("place").textContent =
    `${name}, z = ${z} of ${one.depth}, slice ${state.slice + 1} of ${count}`;
  const shown = [
    showsTruth && `true ${region} outlined in blue`,
    showsFound && `predicted ${region} outlined in orange`,
    { errors: "missed in red, false alarms in yellow", truth: "true tissues",
      prediction: "predicted tissues" }[state.area],
  ];
  canvas.setAttribute("aria-label",
    [`${one.case}, ${name}, axial slice z = ${z}`, ...shown.filter(Boolean)].join(", "));
  const [low, high] = windowOf();
  byId("width").value = Math.round(high - low);
  byId("level").value = Math.round((high + low) / 2);
}

// ---- Moving --------------------------------------------------------------------------------------

function choose(group, value) {
  for (const input of byId(group).querySelectorAll("input"))
    input.checked = input.value === String(value);
}

function resetView() {
  Object.assign(state, { windows: {}, zoom: 1, middle: [0.5, 0.5] });
}

function showCase(number) {
  const count = data.cases.length;
  state.number = (number + count) % count;
  const one = data.cases[state.number];
  state.slice = one.first;
  resetView();
  byId("browser-case").textContent = one.case;
  byId("browser-scores").textContent = one.scores;
  byId("rest").textContent = one.is_whole ? ""
    : `${one.z_indices.length} slices through the tumour; brats view shows all ${one.depth}.`;
  const position = byId("position");
  position.max = one.z_indices.length - 1;
  position.value = state.slice;
  for (const input of byId("modalities").querySelectorAll("input"))
    input.disabled = !(input.value in one.sheets);
  if (!(state.modality in one.sheets)) {
    state.modality = data.modalities.find((name) => name in one.sheets);
    choose("modalities", state.modality);
  }
  for (const input of byId("regions").querySelectorAll("input"))
    input.disabled = !one.known.includes(data.regions[input.value]);
  if (!one.known.includes(data.regions[state.region])) {
    state.region = data.regions.indexOf(one.known[0]);
    choose("regions", state.region);
  }
  const hasTissues = one.known.length === 3;
  for (const input of byId("areas").querySelectorAll("input"))
    input.disabled = input.value === "truth" && !hasTissues;
  if (state.area === "truth" && !hasTissues) setArea("errors");
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

function setArea(name) {
  state.area = name;
  choose("areas", name);
  byId("key-errors").hidden = name !== "errors";
  byId("key-tissues").hidden = name !== "truth" && name !== "prediction";
  if (dialog.open) draw();
}

// The next choice of a group of radio buttons.
function next(group, set) {
  const inputs = [...byId(group).querySelectorAll("input:not(:disabled)")];
  const at = inputs.findIndex((input) => input.checked);
  const { value } = inputs[(at + 1) % inputs.length];
  set(group === "regions" ? Number(value) : value);
}

function flip(id) { byId(id).checked = !byId(id).checked; draw(); }

function setWindow(width, level) {
  const wide = Math.min(Math.max(width, 2), 510);
  const at = Math.min(Math.max(level, 0), 255);
  state.windows[state.modality] = [at - wide / 2, at + wide / 2];
  draw();
}

function changeWindow(width, level) {
  const [low, high] = windowOf();
  setWindow(high - low + width, (high + low) / 2 + level);
}

// Zooms so that the place (x, y) of the slice, from 0 to 1, stays where it is on the canvas.
function zoomBy(factor, [x, y] = state.middle) {
  const zoom = Math.min(Math.max(state.zoom * factor, 1), 16);
  const kept = state.zoom / zoom;
  state.zoom = zoom;
  pan(x + (state.middle[0] - x) * kept, y + (state.middle[1] - y) * kept);
}

function pan(x, y) {
  const inside = (value) => Math.min(Math.max(value, 0), 1);
  state.middle = state.zoom === 1 ? [0.5, 0.5] : [inside(x), inside(y)];
  draw();
}

// Sides of the slice in CSS pixels as it is drawn.
function shownSize() {
  const { width, height, pixel_mm: [dy, dx] } = data.cases[state.number];
  const tall = (height * dy) / dx;
  const scale = (state.zoom * 0.97 * canvas.clientWidth) / Math.max(width, tall);
  return [width * scale, tall * scale];
}

function placeOf(event) {
  const box = canvas.getBoundingClientRect();
  const [wide, tall] = shownSize();
  return [state.middle[0] + (event.clientX - box.x - box.width / 2) / wide,
    state.middle[1] + (event.clientY - box.y - box.height / 2) / tall];
}

const keys = {
  ArrowUp: () => moveSlice(1),
  ArrowDown: () => moveSlice(-1),
  PageUp: () => moveSlice(4),
  PageDown: () => moveSlice(-4),
  Home: () => moveSlice(-Infinity),
  End: () => moveSlice(Infinity),
  ArrowLeft: () => moveCase(-1),
  ArrowRight: () => moveCase(1),
  m: () => next("modalities", setModality),
  r: () => next("regions", setRegion),
  a: () => next("areas", setArea),
  t: () => flip("show-truth"),
  p: () => flip("show-prediction"),
  "+": () => zoomBy(1.25),
  "-": () => zoomBy(0.8),
  "[": () => changeWindow(-8, 0),
  "]": () => changeWindow(8, 0),
  ",": () => changeWindow(0, -4),
  ".": () => changeWindow(0, 4),
  0: () => { resetView(); draw(); },
};

// ---- Pointers: one turns the slices, or moves them when they are zoomed; two zoom; the right
// button changes the window. ---------------------------------------------------------------------

const pointers = new Map(); // id -> the last event
let turned = 0; // pixels drawn over without a new slice

function distance() {
  const [one, other] = [...pointers.values()];
  return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
}

function movePointer(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
  const apart = pointers.size === 2 ? distance() : 0;
  pointers.set(event.pointerId, event);
  if (pointers.size === 2) zoomBy(distance() / apart, placeOf(event));
  else if (event.buttons & 2) changeWindow(x, -y);
  else if (state.zoom > 1) {
    const [wide, tall] = shownSize();
    pan(state.middle[0] - x / wide, state.middle[1] - y / tall);
  } else {
    turned += y;
    if (Math.abs(turned) < 16) return;
    moveSlice(turned < 0 ? 1 : -1);
    turned = 0;
  }
}

function listenToCanvas() {
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (!event.deltaY) return; // sideways
    if (event.ctrlKey) zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15, placeOf(event));
    else moveSlice(event.deltaY < 0 ? 1 : -1);
  }, { passive: false });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
    turned = 0;
  });
  canvas.addEventListener("pointermove", movePointer);
  for (const name of ["pointerup", "pointercancel"])
    canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
}

// ---- Controls ------------------------------------------------------------------------------------

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

function addControls() {
  addChoices("modalities", data.modalities, data.modalities.map((m) => data.names[m]), setModality);
  addChoices("regions", data.regions.map((_, number) => number),
    data.regions.map((region) => data.region_names[region]), setRegion);
  const areas = { errors: "errors", truth: "true tissues", prediction: "predicted tissues", none: "none" };
  const offered = Object.keys(areas).filter(
    (name) => data.regions.length === 3 || name === "errors" || name === "none");
  addChoices("areas", offered, offered.map((name) => areas[name]), setArea);
  addKey(byId("key-errors"), "area", data.colors.missed, "missed");
  addKey(byId("key-errors"), "area striped", data.colors.alarm, "false alarm");
  for (const { name, color } of [...data.tissues].reverse())
    addKey(byId("key-tissues"), "area", color, name);
  byId("key-truth").style.color = data.colors.truth;
  byId("key-prediction").style.color = data.colors.prediction;
}

if (data.cases.length) {
  addControls();
  for (const button of document.querySelectorAll("button.case"))
    button.addEventListener("click", () => {
      dialog.showModal();
      showCase(Number(button.dataset.number));
      canvas.focus();
    });
  const press = { close: () => dialog.close(), previous: () => moveCase(-1), next: () => moveCase(1),
    nearer: keys["+"], farther: keys["-"], reset: keys[0] };
  for (const [id, act] of Object.entries(press)) byId(id).addEventListener("click", act);
  byId("position").addEventListener("input", (event) => {
    state.slice = Number(event.target.value);
    draw();
  });
  for (const id of ["width", "level"])
    byId(id).addEventListener("input", () =>
      setWindow(Number(byId("width").value), Number(byId("level").value)));
  for (const id of ["show-truth", "show-prediction"]) byId(id).addEventListener("change", draw);
  listenToCanvas();
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

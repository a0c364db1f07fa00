"use strict";
// Three planes of a scan, linked by a crosshair, and the brain with masks in it. NiiVue draws the
// pictures; outlines, letters and scales are drawn on a canvas above its own.

const canvas = byId("planes");
const lines = byId("lines");
const truth = data.masks.findIndex((one) => one.kind === "truth");
const state = {
  volume: 0,
  mask: Math.max(0, data.masks.findIndex((one) => one.kind !== "truth")),
  area: "tissues",
  region: "wt",
  ready: false,
};
// Labels of the one image of areas that NiiVue draws: the tissues, and these.
const ERRORS = { found: 5, missed: 6, alarm: 7 };
const ERROR_NAMES = { missed: "missed", alarm: "false alarm", found: "found" };
let viewer, volumes, masks, areas;

function colorTable() {
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
  const add = (label, color, name) => {
    const [red, green, blue] = rgb(color);
    for (const [key, value] of Object.entries({ R: red, G: green, B: blue, A: 255, I: label, labels: name }))
      table[key].push(value);
  };
  for (const [label, color] of Object.entries(data.tissue_colors)) add(Number(label), color, label);
  for (const [name, label] of Object.entries(ERRORS)) add(label, data.colors[name], name);
  return table;
}

// Whether a label of a mask is in the region; all are where nothing tells what they mean.
function membership(mask) {
  const { doubt } = data.masks[mask];
  return Array.from({ length: 8 }, (_, label) =>
    doubt ? label > 0 : data.regions[state.region].includes(label));
}

// Fills the image of areas: tissues of the mask, or where it errs.
function fillAreas() {
  const out = areas.img;
  const own = masks[state.mask].img;
  if (state.area === "tissues") out.set(own);
  else if (state.area === "none") out.fill(0);
  else {
    const [inTruth, inOwn] = [membership(truth), membership(state.mask)];
    const right = masks[truth].img;
    for (let i = 0; i < out.length; i++) {
      const [isTrue, isFound] = [inTruth[right[i]], inOwn[own[i]]];
      out[i] = isTrue ? (isFound ? ERRORS.found : ERRORS.missed) : isFound ? ERRORS.alarm : 0;
    }
  }
}

async function load() {
  viewer = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.5, 0.9, 0.6, 0.6],
    crosshairWidth: 0.5,
    isOrientCube: true,
    fontColor: [1, 1, 1, 1],
    isRadiologicalConvention: true,
    isNearestInterpolation: false,
    isOrientationTextVisible: false,
    sliceType: 0, // the brain, which takes longer, is drawn once all is set
    dragAndDropEnabled: false,
    isColorbar: false,
    loadingText: "",
    logLevel: "error",
  });
  viewer.onLocationChange = describe;
  await viewer.attachToCanvas(canvas);
  volumes = [];
  for (const one of data.volumes)
    volumes.push(await niivue.NVImage.loadFromBase64({
      base64: one.nifti, name: "scan.nii.gz", colormap: "gray", cal_min: one.low, cal_max: one.high,
    }));
  masks = [];
  for (const one of data.masks)
    masks.push(await niivue.NVImage.loadFromBase64({ base64: one.nifti, name: "mask.nii.gz" }));
  if (masks.length) {
    areas = masks[0].clone();
    areas.img = new Uint8Array(masks[0].img.length);
    areas.hdr.intent_code = 1002; // NIFTI_INTENT_LABEL
    areas.setColormapLabel(colorTable());
  }
  const drawScene = viewer.drawScene.bind(viewer);
  viewer.drawScene = (...rest) => { const drawn = drawScene(...rest); drawLines(); return drawn; };
  show();
  viewer.scene.crosshairPos = viewer.mm2frac(data.start);
  viewer.scene.renderAzimuth = 110;
  viewer.scene.renderElevation = 15;
  await viewer.setVolumeRenderIllumination(0.6);
  await viewer.setGradientOpacity(0.3); // a brain that its tumour is seen through
  viewer.createOnLocationChange();
  arrange();
  state.ready = true;
  canvas.dataset.ready = "yes";
}

// ---- Layout: the pictures fill the canvas --------------------------------------------------------

// Sides of the scan in mm: to the left, to the front, upwards.
function extent() {
  const { dimsRAS, pixDimsRAS } = volumes[0];
  return [1, 2, 3].map((axis) => dimsRAS[axis] * pixDimsRAS[axis]);
}

// Cells as [picture, left, top, width, height] in pixels, with the brain and without.
function layouts(w, h) {
  const [wide, deep, tall] = extent();
  const hasBrain = byId("show-brain").checked;
  const [left, top] = [(w * wide) / (wide + deep), (h * tall) / (tall + deep)];
  const side = (h * wide) / deep; // width of an axial plane as high as the canvas
  const hero = Math.min(side, (hasBrain ? 0.55 : 0.65) * w);
  const middle = ((w - hero) * wide) / (wide + deep);
  if (!hasBrain) {
    const upper = Math.max(0.4 * h, h - (w * tall) / (wide + deep)); // the others below the axial plane
    const share = w / (2 * wide + deep);
    return [
      [["axial", 0, 0, wide * share, h], ["coronal", wide * share, 0, wide * share, h],
        ["sagittal", 2 * wide * share, 0, deep * share, h]],
      [["axial", 0, 0, hero, h], ["coronal", hero, 0, middle, h], ["sagittal", hero + middle, 0, w - hero - middle, h]],
      [["axial", 0, 0, hero, h], ["coronal", hero, 0, w - hero, h / 2], ["sagittal", hero, h / 2, w - hero, h / 2]],
      [["axial", 0, 0, w, upper], ["coronal", 0, upper, left, h - upper],
        ["sagittal", left, upper, w - left, h - upper]],
    ];
  }
  const upper = Math.min(0.5 * h, ((w - hero) * tall) / (wide + deep));
  const share = w / (2 * (wide + deep));
  return [
    [["coronal", 0, 0, left, top], ["sagittal", left, 0, w - left, top],
      ["axial", 0, top, left, h - top], ["render", left, top, w - left, h - top]],
    [["axial", 0, 0, wide * share, h], ["coronal", wide * share, 0, wide * share, h],
      ["sagittal", 2 * wide * share, 0, deep * share, h], ["render", w - deep * share, 0, deep * share, h]],
    [["axial", 0, 0, hero, h], ["coronal", hero, 0, middle, upper],
      ["sagittal", hero + middle, 0, w - hero - middle, upper], ["render", hero, upper, w - hero, h - upper]],
  ];
}

// The layout in which the planes are largest.
function arrange() {
  const [wide, deep, tall] = extent();
  const sides = { axial: [wide, deep], coronal: [wide, tall], sagittal: [deep, tall] };
  const area = (cells) => cells.reduce((sum, [name, , , width, height]) => {
    if (!sides[name]) return sum;
    const scale = Math.min(width / sides[name][0], height / sides[name][1]);
    return sum + scale * scale * sides[name][0] * sides[name][1];
  }, 0);
  const [w, h] = [canvas.clientWidth, canvas.clientHeight];
  const cells = layouts(w, h).reduce((best, one) => (area(one) > area(best) ? one : best));
  const types = { axial: 0, coronal: 1, sagittal: 2, render: 4 };
  const less = 1e-6; // rounding must not let two cells overlap
  viewer.setCustomLayout(cells.map(([name, left, top, width, height]) => ({
    sliceType: types[name],
    position: [left / w, top / h, width / w - less, height / h - less],
  })));
}

// ---- Outlines, letters and scales ----------------------------------------------------------------

// (x, y, z) of the voxel at the crosshair, in RAS order.
function crosshair() {
  return viewer.frac2vox(viewer.scene.crosshairPos).map((value) => Math.round(value));
}

// A plane of a mask: width, height and whether (column, row) is in the region.
function planeOf(mask, axis) {
  const image = masks[mask];
  image.rasLabels ??= image.img2RAS();
  const labels = image.rasLabels;
  const [, nx, ny, nz] = image.dimsRAS;
  const [x, y, z] = crosshair();
  const isMember = membership(mask);
  const at = (i, j, k) => isMember[labels[i + nx * (j + ny * k)]];
  if (axis === 0) return [nx, ny, (i, j) => at(i, j, z)];
  if (axis === 1) return [nx, nz, (i, k) => at(i, y, k)];
  return [ny, nz, (j, k) => at(x, j, k)];
}

// The axes that run along a tile and up it, of x to the right, y to the front and z upwards.
const AXES = { 0: [0, 1], 1: [0, 2], 2: [1, 2] };

// How a tile shows the scan, [start, end] from 0 to 1 of both axes, by two points within it: NiiVue
// takes points at its edge for outside.
function spanOf(tile, index) {
  const [left, top, wide, high] = tile.leftTopWidthHeight;
  const [one, other] = [0.25, 0.75].map((at) =>
    viewer.screenXY2TextureFrac(left + at * wide, top + at * high, index, false));
  return AXES[tile.axCorSag].map((axis) => {
    const half = (other[axis] - one[axis]) / 2;
    return [one[axis] - half, other[axis] + half];
  });
}

// Where the voxels of a tile lie on the canvas.
function placeOf(tile, index, width, height) {
  const [left, top, wide, high] = tile.leftTopWidthHeight;
  const [[x, right], [y, bottom]] = spanOf(tile, index);
  const [sx, sy] = [wide / (right - x) / width, high / (bottom - y) / height];
  return new DOMMatrix([sx, 0, 0, sy, left - x * width * sx, top - y * height * sy]);
}

function drawLines() {
  if (!viewer.customLayout) return; // not all is loaded
  lines.width = canvas.width;
  lines.height = canvas.height;
  const pen = lines.getContext("2d", { willReadFrequently: true }); // the same pixels every time
  const ratio = canvas.width / canvas.clientWidth;
  viewer.screenSlices.forEach((tile, index) => {
    if (tile.axCorSag > 2) return;
    pen.save();
    pen.beginPath();
    pen.rect(...tile.leftTopWidthHeight);
    pen.clip();
    for (const [mask, color, gap, box] of [
      [truth, data.colors.truth, 0, "outline-truth"],
      [state.mask === truth ? -1 : state.mask, data.colors.prediction, 0.18, "outline-mask"],
    ]) {
      if (mask < 0 || !byId(box)?.checked) continue;
      const [width, height, isInside] = planeOf(mask, tile.axCorSag);
      const path = new Path2D();
      path.addPath(outline(isInside, width, height, gap), placeOf(tile, index, width, height));
      pen.strokeStyle = color;
      pen.lineWidth = 2 * ratio;
      pen.stroke(path);
    }
    pen.restore();
    drawMarks(pen, tile, index, ratio);
  });
}

// Letters on all four sides, the modality, and a scale.
function drawMarks(pen, tile, index, ratio) {
  const [left, top, wide, high] = tile.leftTopWidthHeight;
  const [right, bottom] = [left + wide, top + high];
  const edge = 6 * ratio;
  // A tile's left is the patient's right, and in a sagittal plane the front or the back.
  const axes = AXES[tile.axCorSag];
  const [across, down] = spanOf(tile, index);
  const side = (axis, [start, end], isEnd) => ["LR", "PA", "IS"][axis][Number(end > start === isEnd)];
  write(pen, ratio, side(axes[0], across, false), left + edge, (top + bottom) / 2, 15, "left", "middle");
  write(pen, ratio, side(axes[0], across, true), right - edge, (top + bottom) / 2, 15, "right", "middle");
  write(pen, ratio, side(axes[1], down, false), (left + right) / 2, top + edge, 15, "center", "top");
  write(pen, ratio, side(axes[1], down, true), (left + right) / 2, bottom - edge, 15, "center", "bottom");
  write(pen, ratio, data.volumes[state.volume].name, left + edge, top + edge, 13, "left", "top");
  const mm = Math.abs(across[1] - across[0]) * extent()[axes[0]];
  drawScale(pen, ratio, wide / mm, 0.3 * wide, right - edge, bottom - edge);
}

// ---- State ---------------------------------------------------------------------------------------

function show() {
  if (areas) {
    fillAreas();
    areas.opacity = Number(byId("opacity").value);
  }
  viewer.volumes = areas ? [volumes[state.volume], areas] : [volumes[state.volume]];
  viewer.setVolume(volumes[state.volume], 0); // makes it the background, and draws
  viewer.createOnLocationChange();
  showLegend();
  const views = byId("show-brain").checked ? "three planes and the brain" : "three planes";
  const shown = data.masks.length ? [data.masks[state.mask].name, state.area] : [];
  canvas.setAttribute("aria-label",
    [`${data.case}, ${data.volumes[state.volume].name}, ${views}`, ...shown].join(", "));
}

function showLegend() {
  byId("legend").replaceChildren();
  if (!data.masks.length) return;
  if (state.area === "tissues")
    for (const [label, name] of Object.entries(data.masks[state.mask].names))
      addKey(byId("legend"), "area", data.tissue_colors[label], name);
  if (state.area === "errors")
    for (const [kind, name] of Object.entries(ERROR_NAMES))
      addKey(byId("legend"), "area", data.colors[kind], name);
}

function describe(location) {
  const [x, y, z] = location.mm;
  const name = data.volumes[state.volume].name;
  const values = [`${name} ${Number(location.values[0].value.toPrecision(4))}`];
  const vox = crosshair();
  data.masks.forEach((one, number) => {
    const label = masks?.[number]?.getValue(...vox) ?? 0;
    values.push(`${one.name} ${one.names[label] ?? "nothing"}`);
  });
  const [right, anterior, superior] = [x, y, z].map((value) => value.toFixed(1));
  byId("place").textContent =
    `x ${right}, y ${anterior}, z ${superior} mm (to the right, front, top): ${values.join("; ")}`;
}

function choose(group, key, value) {
  state[key] = value;
  for (const input of byId(group).querySelectorAll("input")) input.checked = input.value === String(value);
  // Errors are those of a mask against the truth.
  if (key === "area" && value === "errors" && state.mask === truth)
    choose("masks", "mask", data.masks.findIndex((one) => one.kind !== "truth"));
  if (key === "mask" && value === truth && state.area === "errors") choose("areas", "area", "tissues");
  show();
}

function next(group, key) {
  const inputs = [...byId(group).querySelectorAll("input")];
  if (!inputs.length) return;
  const { value } = inputs[(inputs.findIndex((one) => one.checked) + 1) % inputs.length];
  choose(group, key, Number.isNaN(Number(value)) ? value : Number(value));
}

function flip(id) {
  const box = byId(id);
  if (!box) return;
  box.checked = !box.checked;
  box.dispatchEvent(new Event("change"));
}

// Shows or hides the brain, after its box was ticked or not.
function turnBrain() {
  if (!state.ready) return;
  arrange();
  show();
}

// ---- Controls ------------------------------------------------------------------------------------

function addChoices(group, key, choices, kind = "radio") {
  for (const [value, name] of choices) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: kind, name: group, value: String(value), checked: value === state[key] });
    input.addEventListener("change", () => choose(group, key, value));
    label.append(input, name);
    byId(group).append(label);
  }
  byId(group).hidden = choices.length < 2;
}

function addOutline(id, color, name, kind) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: "checkbox", id, checked: true });
  input.addEventListener("change", () => viewer.drawScene());
  label.append(input, keyOf(kind, color), name);
  byId("outlines").append(label);
}

function addControls() {
  const hasOthers = data.masks.some((one) => one.kind !== "truth");
  addChoices("volumes", "volume", data.volumes.map((one, number) => [number, one.name]));
  addChoices("masks", "mask", data.masks.map((one, number) => [number, one.name]));
  const known = data.masks.length && data.masks.every((one) => one.known.length === 3)
    ? Object.keys(data.regions) : ["wt"];
  addChoices("regions", "region", data.masks.length ? known.map((name) => [name, data.region_names[name]]) : []);
  const offered = [["tissues", "tissues"], ["errors", "errors"], ["none", "none"]];
  addChoices("areas", "area", !data.masks.length ? []
    : offered.filter(([name]) => name !== "errors" || (truth >= 0 && hasOthers)));
  if (truth >= 0) addOutline("outline-truth", data.colors.truth, "truth", "line");
  if (hasOthers) addOutline("outline-mask", data.colors.prediction, "mask", "line dashed");
  for (const id of ["outlines", "opacity-row"]) byId(id).hidden = !data.masks.length;
  byId("opacity").addEventListener("input", show);
  byId("show-brain").addEventListener("change", turnBrain);
  window.addEventListener("resize", () => { if (state.ready) arrange(); });
}

const keys = {
  ArrowLeft: () => viewer.moveCrosshairInVox(1, 0, 0), // the patient's right is on the left
  ArrowRight: () => viewer.moveCrosshairInVox(-1, 0, 0),
  ArrowUp: () => viewer.moveCrosshairInVox(0, 1, 0),
  ArrowDown: () => viewer.moveCrosshairInVox(0, -1, 0),
  PageUp: () => viewer.moveCrosshairInVox(0, 0, 1),
  PageDown: () => viewer.moveCrosshairInVox(0, 0, -1),
  m: () => next("volumes", "volume"),
  n: () => next("masks", "mask"),
  a: () => next("areas", "area"),
  r: () => next("regions", "region"),
  t: () => flip("outline-truth"),
  p: () => flip("outline-mask"),
  b: () => flip("show-brain"),
};

document.addEventListener("keydown", (event) => {
  const act = keys[event.key] ?? keys[event.key.toLowerCase()];
  if (!state.ready || !act || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input") && event.key.length > 1) return;
  event.preventDefault();
  event.stopPropagation(); // NiiVue has other meanings for some letters
  act();
}, true);

addControls();
load().catch((error) => {
  canvas.hidden = true;
  byId("place").textContent = `This browser cannot show the scan (it needs WebGL 2): ${error}`;
  throw error;
});

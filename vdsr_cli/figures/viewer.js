"use strict";
/* What reports and the page of `vdsr serve` share. show() takes what it shows as services/report.py
   lays it out, and may be called again. */
const $ = (id) => document.getElementById(id);
const make = (name, text, parent) => {
  const element = document.createElement(name);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
};

/* One zoom for all: z, and the part's centre as shares of the picture. */
const zoom = { z: 1, x: 0.5, y: 0.5 };
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
function applyZoom() {
  zoom.z = clamp(zoom.z, 1, 32);
  const half = 0.5 / zoom.z;
  zoom.x = clamp(zoom.x, half, 1 - half);
  zoom.y = clamp(zoom.y, half, 1 - half);
  const shift = (centre) => 100 * (0.5 - centre * zoom.z) + "%";
  const transform = `translate(${shift(zoom.x)}, ${shift(zoom.y)}) scale(${zoom.z})`;
  for (const image of document.querySelectorAll(".view img")) image.style.transform = transform;
  document.body.classList.toggle("zoomed", zoom.z > 1);
  $("zoom").textContent = `${Math.round(10 * zoom.z) / 10}×`;
}
function zoomBy(factor, x = 0.5, y = 0.5) {
  /* x, y: the point of the view, as shares, that stays where it is. */
  const before = zoom.z;
  zoom.z = clamp(before * factor, 1, 32);
  zoom.x += (x - 0.5) * (1 / before - 1 / zoom.z);
  zoom.y += (y - 0.5) * (1 / before - 1 / zoom.z);
  applyZoom();
}
function moveBy(x, y) {
  zoom.x += x / zoom.z;
  zoom.y += y / zoom.z;
  applyZoom();
}
function resetZoom() {
  Object.assign(zoom, { z: 1, x: 0.5, y: 0.5 });
  applyZoom();
}
const zoomKeys = {
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), "0": resetZoom,
};
const moveKeys = {
  ArrowLeft: () => moveBy(-0.1, 0), ArrowRight: () => moveBy(0.1, 0),
  ArrowUp: () => moveBy(0, -0.1), ArrowDown: () => moveBy(0, 0.1),
};
function listenKeys(element, keys) {
  element.addEventListener("keydown", (event) => {
    const action = !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key];
    if (!action) return;
    action();
    event.preventDefault();
  });
}
function listenWheel(view) {
  view.addEventListener("wheel", (event) => {
    if (zoom.z === 1 && event.deltaY > 0) return; /* let the page scroll on */
    if (!event.ctrlKey && zoom.z === 1 && document.activeElement?.closest(".view") !== view) return;
    const box = view.getBoundingClientRect();
    const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    zoomBy(Math.exp(-clamp(event.deltaY, -100, 100) / 250), ...at);
    event.preventDefault();
  }, { passive: false });
}
function listenPointers(view) {
  const fingers = new Map();
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  view.addEventListener("pointerdown", (event) => {
    view.focus({ preventScroll: true });
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    view.setPointerCapture(event.pointerId);
  });
  view.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const box = view.getBoundingClientRect();
    const wide = fingers.size === 2 ? spread() : 0;
    const moved = { x: event.clientX, y: event.clientY };
    fingers.set(event.pointerId, moved);
    const share = 1 / fingers.size;
    moveBy(share * (last.x - moved.x) / box.width, share * (last.y - moved.y) / box.height);
    if (wide) zoomBy(spread() / wide);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    view.addEventListener(name, (event) => fingers.delete(event.pointerId));
  }
  view.addEventListener("dblclick", (event) => {
    const box = view.getBoundingClientRect();
    zoomBy(2, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
}
$("in").onclick = () => zoomBy(1.5);
$("out").onclick = () => zoomBy(1 / 1.5);
$("reset").onclick = resetZoom;
$("sharp").onchange = () => document.body.classList.toggle("sharp", $("sharp").checked);

/* Choices of pictures. */
function fill(select, entries, chosen, show) {
  select.replaceChildren();
  entries.forEach((entry, index) => { make("option", entry.label, select).value = index; });
  select.value = chosen;
  select.onchange = () => show(entries[Number(select.value)]);
  show(entries[chosen]);
}
function put(image, entry) {
  image.src = entry.src;
  image.alt = entry.label;
}
function pairs(list, entries) {
  list.replaceChildren();
  for (const [name, value] of entries) {
    const pair = make("div", null, list);
    make("dt", name, pair);
    make("dd", value, pair);
  }
}

/* Before and after. */
const setSplit = () => $("compare").style.setProperty("--split", `${$("split").value}%`);
$("split").oninput = setSplit;
setSplit();
listenKeys($("split"), zoomKeys);
listenWheel($("compare"));
function showCompare(pictures) {
  fill($("left"), pictures, 0, (entry) => { put($("before"), entry); $("tag-left").textContent = entry.label; });
  fill($("right"), pictures, 1, (entry) => { put($("after"), entry); $("tag-right").textContent = entry.label; });
}

/* Deviation. */
const setOpacity = () => { $("map-image").style.opacity = $("opacity").value / 100; };
$("opacity").oninput = setOpacity;
setOpacity();
function showDeviations(pictures, deviations) {
  $("sure").hidden = deviations.length === 0;
  if (!deviations.length) return;
  fill($("under"), pictures, 1, (entry) => put($("under-image"), entry));
  fill($("map"), deviations, 0, (entry) => {
    put($("map-image"), entry);
    $("map-full").textContent = entry.label;
  });
  $("map").parentElement.hidden = deviations.length === 1;
}

/* Side by side. */
function listenPane(view) {
  listenKeys(view, { ...zoomKeys, ...moveKeys });
  listenWheel(view);
  listenPointers(view);
}
listenPane($("overlay"));
function showGrid(pictures) {
  $("grid").replaceChildren();
  for (const entry of pictures) {
    const figure = make("figure", null, $("grid"));
    const view = make("div", null, figure);
    view.className = "view pane";
    view.tabIndex = 0;
    view.setAttribute("role", "group");
    view.setAttribute("aria-label", `${entry.label}; zoom with + and -, move with the arrow keys`);
    put(make("img", null, view), entry);
    make("figcaption", entry.label, figure);
    listenPane(view);
  }
}

/* Figures. */
function showFigures(figures) {
  $("figures").parentElement.hidden = figures.length === 0;
  $("figures").replaceChildren();
  for (const entry of figures) {
    make("h3", entry.title, $("figures"));
    const wide = make("div", null, $("figures"));
    wide.className = "wide";
    const table = make("table", null, wide);
    const head = make("tr", null, make("thead", null, table));
    for (const cell of entry.head) make("th", cell, head).scope = "col";
    const body = make("tbody", null, table);
    for (const row of entry.rows) {
      const line = make("tr", null, body);
      for (const cell of row) make("td", cell, line);
    }
    pairs(make("dl", null, $("figures")), entry.notes);
  }
}

function show(report) {
  const pictures = [...(report.input ? [report.input] : []), ...report.results];
  document.documentElement.style.setProperty("--ratio", report.width / report.height);
  $("title").textContent = report.title;
  $("reduced").hidden = !report.reduced;
  pairs($("facts"), report.facts);
  showCompare(pictures);
  showDeviations(pictures, report.deviations);
  showGrid(pictures);
  showFigures(report.figures);
  resetZoom();
}

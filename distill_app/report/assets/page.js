"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const COLOURS = 8;

// ---- elements ----

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  return filled(element, attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function unique(values) {
  return [...new Set(values)];
}

const isNumber = (text) => text !== null && text !== undefined && String(text).trim() !== "" && Number.isFinite(Number(text));

function ordered(values) {
  return unique(values).sort((a, b) => {
    if (isNumber(a) && isNumber(b)) return Number(a) - Number(b);
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  });
}

// ---- tables ----

function sortRows(table, index, direction) {
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => {
    const cell = row.cells[index];
    const missing = cell.textContent === "-";
    return { row, missing, value: cell.dataset.value === undefined ? null : Number(cell.dataset.value), text: cell.textContent };
  });
  keyed.sort((a, b) => {
    if (a.missing !== b.missing) return a.missing ? 1 : -1;  // what is missing stands last, whichever way
    const both = a.value !== null && b.value !== null;
    const order = both ? a.value - b.value : a.text.localeCompare(b.text, undefined, { numeric: true });
    return direction * order;
  });
  body.append(...keyed.map((each) => each.row));
}

function enableSheet(sheet) {
  const table = sheet.querySelector("table");
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
    const falling = head.classList.contains("number");  // of numbers the largest are wanted first
    const before = head.getAttribute("aria-sort");
    const next = before === null ? (falling ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", next);
    sortRows(table, index, next === "ascending" ? 1 : -1);
  }));
  const words = sheet.querySelector("input");
  const selects = [...sheet.querySelectorAll("select")];
  const count = sheet.querySelector(".count");
  const rows = [...table.tBodies[0].rows];
  const names = heads.map((head) => head.textContent.trim());
  const update = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word)) && selects.every((select) => {
        const cell = row.cells[names.indexOf(select.dataset.head)];
        return select.value === "" || cell.textContent === select.value || cell.textContent === "-";
      });
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
  };
  [words, ...selects].forEach((input) => input.addEventListener("input", update));
  update();
}

document.querySelectorAll(".sheet").forEach(enableSheet);

// ---- commands ----

document.querySelectorAll("pre.code").forEach((block) => {
  const text = block.textContent;
  block.append(make("button", {
    type: "button",
    onclick: async (event) => {
      const button = event.target;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(block.querySelector("code"));
        button.textContent = "selected";
      }
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    },
  }, "copy"));
});

// ---- scales ----

function niceTicks(low, high, count) {
  const span = high - low || Math.abs(high) || 1;
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((value) => value >= raw);
  const ticks = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) ticks.push(value);
  return { ticks, step };
}

function shown(value, step) {
  if (value === 0) return "0";
  if (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3) return Number(value.toPrecision(3)).toString();
  if (step === undefined) return Number(value.toPrecision(4)).toString();
  const decimals = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
  const more = Math.abs(step * 10 ** decimals - Math.round(step * 10 ** decimals)) > 1e-6 ? 1 : 0;
  return value.toFixed(decimals + more);
}

function range(values, share = 0.06) {
  let low = Math.min(...values), high = Math.max(...values);
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  const room = (high - low || Math.abs(high) * 0.1 || 1) * share;
  return [low - room, high + room];
}

function scale(kind, [low, high], [from, to]) {
  const turn = kind === "log" ? Math.log10 : (value) => value;
  const [a, b] = [turn(low), turn(high)];
  return (value) => from + (turn(value) - a) / (b - a || 1) * (to - from);
}

// Colours by position; of ordered numbers a ramp, so that the eye sees their order.
function colourOf(index, count, numeric) {
  if (numeric && count > 2 || count > COLOURS) {
    const share = count > 1 ? Math.round(100 * index / (count - 1)) : 100;
    return `color-mix(in oklab, var(--ramp1) ${share}%, var(--ramp0))`;
  }
  return `var(--c${index % COLOURS})`;
}

// ---- charts ----

// A chart is drawn for the width that it has, and again when that changes.
function chart(host, title, note, render) {
  const figure = make("figure", { class: "chart" }, make("h3", {}, title, note ? make("small", {}, ` ${note}`) : null));
  const place = make("div"), legend = make("div", { class: "legend" });
  figure.append(place, legend);
  host.append(figure);
  const hidden = new Set();
  let width = 0;
  const redraw = () => {
    const drawing = render(Math.max(240, place.clientWidth), hidden);
    place.replaceChildren(drawing.svg);
    drawing.svg.setAttribute("aria-label", title);
    legend.replaceChildren(...drawing.legend.map((entry) => make("button", {
      type: "button", "aria-pressed": String(!hidden.has(entry.name)),
      onclick: () => { hidden.has(entry.name) ? hidden.delete(entry.name) : hidden.add(entry.name); redraw(); },
    }, make("i", { class: entry.dashed ? "dashed" : null, style: `${entry.dashed ? "border-color" : "background"}: ${entry.colour}` }), entry.name + (entry.beyond ? " (beyond the axis)" : ""))));
  };
  const fit = () => {
    if (place.clientWidth && place.clientWidth !== width) { width = place.clientWidth; redraw(); }
  };
  fit();
  new ResizeObserver(fit).observe(place);
}

function canvas(width, height) {
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", width, height });
}

// Tells of the point that is nearest to the pointer.
function tellNearest(svg, marks, width) {
  const ring = draw("circle", { r: 6, fill: "none", stroke: "var(--ink)", "stroke-width": 1.5, visibility: "hidden" });
  svg.append(ring);
  const away = () => { tip.hidden = true; ring.setAttribute("visibility", "hidden"); };
  svg.addEventListener("pointerleave", away);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), factor = width / box.width;
    const x = (event.clientX - box.left) * factor, y = (event.clientY - box.top) * factor;
    let best = null, least = 40 ** 2;
    for (const mark of marks) {
      const distance = (mark.x - x) ** 2 + (mark.y - y) ** 2;
      if (distance < least) [best, least] = [mark, distance];
    }
    if (best === null) return away();
    ring.setAttribute("cx", best.x); ring.setAttribute("cy", best.y); ring.setAttribute("visibility", "visible");
    tip.textContent = best.text;
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const top = event.clientY + 16 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : event.clientY + 16;
    tip.style.left = `${Math.max(8, left)}px`; tip.style.top = `${top}px`;
  });
}

// Lines over a number. series: {name, group, colour, points: [{x, y, std, text}], seeds, thin}; references: {name, y, colour}.
function lineChart(host, { title, note, series, references = [], x, yLabel, format }) {
  chart(host, title, note, (width, hidden) => {
    const height = width < 480 ? 260 : Math.min(420, Math.max(280, width * 0.36));
    const left = 56, right = 14, top = 10, bottom = 46;
    const seen = series.filter((each) => !hidden.has(each.group)), held = references.filter((each) => !hidden.has(each.name));
    const ys = seen.flatMap((each) => each.points.flatMap((point) => [point.y - (point.std || 0), point.y + (point.std || 0)]));
    const [low, high] = range([...ys, ...seen.flatMap((each) => (each.seeds || []).map((seed) => seed.y)), ...near(held, ys)]);
    const xs = series.flatMap((each) => each.points.map((point) => point.x));
    const xRange = x.kind === "log" ? [Math.min(...xs) / 1.15, Math.max(...xs) * 1.15] : range(xs, x.room ?? 0.04);
    const toX = scale(x.kind, xRange, [left, width - right]), toY = scale("linear", [low, high], [height - bottom, top]);
    const svg = canvas(width, height), marks = [];
    const { ticks, step } = niceTicks(low, high, height / 55);
    for (const tick of ticks) {
      svg.append(draw("line", { class: "gridline", x1: left, x2: width - right, y1: toY(tick), y2: toY(tick) }));
      svg.append(draw("text", { x: left - 7, y: toY(tick) + 4, "text-anchor": "end" }, shown(tick, step)));
    }
    xTicks(svg, x, xRange, toX, { left, right: width - right, y: height - bottom });
    svg.append(draw("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x.label));
    svg.append(draw("text", { x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }, yLabel));
    for (const each of held) referenceLine(svg, each, low, high, toY, left, width - right);
    for (const each of seen) {
      const points = each.points.map((point) => ({ ...point, px: toX(point.x) + (each.shift || 0), py: toY(point.y) }));
      for (const seed of each.seeds || []) svg.append(draw("circle", { cx: toX(seed.x) + (each.shift || 0), cy: toY(seed.y), r: 2.2, fill: each.colour, opacity: 0.45 }));
      for (const point of points.filter((point) => point.std)) {
        svg.append(draw("line", { x1: point.px, x2: point.px, y1: toY(point.y - point.std), y2: toY(point.y + point.std), stroke: each.colour, "stroke-width": 1.5, opacity: 0.7 }));
      }
      const path = points.map((point, index) => `${index ? "L" : "M"}${point.px.toFixed(1)} ${point.py.toFixed(1)}`).join("");
      svg.append(draw("path", { d: path, fill: "none", stroke: each.colour, "stroke-width": each.thin ? 1.2 : 2, opacity: each.thin ? 0.75 : 1, "stroke-linejoin": "round" }));
      const dots = !each.thin || points.length === 1;
      if (dots) for (const point of points) svg.append(draw("circle", { cx: point.px, cy: point.py, r: 4, fill: each.colour }));
      for (const point of points) marks.push({ x: point.px, y: point.py, text: point.text || `${each.name}\n${format(point.y)}` });
    }
    tellNearest(svg, marks, width);
    const groups = unique(series.map((each) => each.group)).map((group) => ({ name: group, colour: series.find((each) => each.group === group).colour }));
    const many = groups.length > 24;
    return { svg, legend: [...(groups.length > 1 && !many ? groups : []), ...told(references, low, high)] };
  });
}

function told(references, low, high) {
  return references.map((each) => ({ ...each, dashed: true, beyond: each.y < low || each.y > high }));
}

// A reference far from everything would press all else into a line: then it is only told.
function near(references, ys) {
  if (!ys.length) return references.map((each) => each.y);
  const low = Math.min(...ys), high = Math.max(...ys), room = Math.max(high - low, 1e-9) * 0.8;
  return references.map((each) => each.y).filter((y) => y > low - room && y < high + room);
}

function referenceLine(svg, each, low, high, toY, from, to) {
  if (each.y < low || each.y > high) return;
  svg.append(draw("line", { class: "reference", x1: from, x2: to, y1: toY(each.y), y2: toY(each.y), stroke: each.colour }));
}

function xTicks(svg, x, [low, high], toX, place) {
  svg.append(draw("line", { class: "axis", x1: place.left, x2: place.right, y1: place.y, y2: place.y }));
  const least = x.whole ? 1 : 0;
  const spaced = niceTicks(low, high, Math.max(2, (place.right - place.left) / 80));
  const ticks = x.ticks || spaced.ticks.filter((tick) => !x.whole || Number.isInteger(tick) && tick >= least);
  let last = -Infinity;
  for (const tick of ticks) {
    const label = x.ticks ? String(tick) : shown(tick, spaced.step), at = toX(Number(tick));
    svg.append(draw("line", { class: "axis", x1: at, x2: at, y1: place.y, y2: place.y + 4 }));
    if (at - last < label.length * 7 + 6) continue;
    svg.append(draw("text", { x: at, y: place.y + 18, "text-anchor": "middle" }, label));
    last = at;
  }
}

// Rows with a value: a mark for each result, seeds as small dots. rows: {label, marks: [{mean, std, seeds, colour, group, text}]}.
function dotChart(host, { title, note, rows, references = [], xLabel }) {
  chart(host, title, note, (width, hidden) => {
    const longest = Math.max(...rows.map((row) => row.label.length)), narrow = width < 620 && longest > 14;
    const left = narrow ? 10 : Math.min(width * 0.45, 16 + longest * 6.7), right = 16, top = 8;
    const each = rows.map((row) => row.marks.filter((mark) => !hidden.has(mark.group)));
    const heights = each.map((marks) => Math.max(narrow ? 34 : 24, marks.length * 11 + (narrow ? 22 : 10)));
    const bottom = 44, height = top + heights.reduce((a, b) => a + b, 0) + bottom;
    const held = references.filter((reference) => !hidden.has(reference.name));
    const values = each.flat().flatMap((mark) => [mark.mean - (mark.std || 0), mark.mean + (mark.std || 0), ...mark.seeds]);
    const [low, high] = range([...values, ...near(held, values)]);
    const toX = scale("linear", [low, high], [left, width - right]);
    const svg = canvas(width, height), marks = [];
    const { ticks, step } = niceTicks(low, high, Math.max(2, (width - left - right) / 90));
    for (const tick of ticks) {
      svg.append(draw("line", { class: "gridline", x1: toX(tick), x2: toX(tick), y1: top, y2: height - bottom }));
      svg.append(draw("text", { x: toX(tick), y: height - bottom + 18, "text-anchor": "middle" }, shown(tick, step)));
    }
    svg.append(draw("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xLabel));
    for (const reference of held) {
      if (reference.y < low || reference.y > high) continue;
      svg.append(draw("line", { class: "reference", x1: toX(reference.y), x2: toX(reference.y), y1: top, y2: height - bottom, stroke: reference.colour }));
    }
    let y = top;
    rows.forEach((row, index) => {
      const limit = Math.floor((narrow ? width - 20 : left - 12) / 6.6);
      const label = row.label.length > limit ? `${row.label.slice(0, limit - 1)}\u2026` : row.label;
      const middle = narrow ? y + 24 : y + heights[index] / 2;
      svg.append(narrow ? draw("text", { class: "label", x: left, y: y + 13 }, label) : draw("text", { class: "label", x: left - 10, y: middle + 4, "text-anchor": "end" }, label));
      each[index].forEach((mark, number) => {
        const at = middle + (narrow ? number * 11 : (number - (each[index].length - 1) / 2) * 11);
        for (const seed of mark.seeds) svg.append(draw("circle", { cx: toX(seed), cy: at, r: 2.3, fill: mark.colour, opacity: 0.5 }));
        if (mark.std) svg.append(draw("line", { x1: toX(mark.mean - mark.std), x2: toX(mark.mean + mark.std), y1: at, y2: at, stroke: mark.colour, "stroke-width": 2 }));
        svg.append(draw("circle", { cx: toX(mark.mean), cy: at, r: 4.6, fill: mark.colour }));
        marks.push({ x: toX(mark.mean), y: at, text: mark.text });
      });
      y += heights[index];
    });
    tellNearest(svg, marks, width);
    const groups = unique(rows.flatMap((row) => row.marks.map((mark) => mark.group)));
    const colours = Object.fromEntries(rows.flatMap((row) => row.marks.map((mark) => [mark.group, mark.colour])));
    const legend = groups.length > 1 && groups.length <= 24 ? groups.map((group) => ({ name: group, colour: colours[group] })) : [];
    return { svg, legend: [...legend, ...told(references, low, high)] };
  });
}

// ---- what the sections share ----

function control(place, label, options, value, change) {
  const select = make("select", { onchange: () => change(select.value) });
  for (const [key, text] of options) select.append(make("option", { value: key }, text));
  select.value = value;
  place.append(make("label", {}, label, select));
  return select;
}

function section(name) {
  return {
    controls: document.querySelector(`[data-controls="${name}"]`),
    charts: document.querySelector(`[data-charts="${name}"]`),
  };
}

function drop(name) {
  document.getElementById(name).remove();
  document.querySelectorAll(`[data-for="${name}"]`).forEach((link) => link.remove());
}

const metricNamed = (name) => data.metrics.find((metric) => metric.name === name);

function formatter(metric) {
  const decimals = metric && metric.decimals !== null ? metric.decimals : metric && metric.percent ? 2 : null;
  const unit = !metric ? "" : metric.percent ? "%" : metric.unit ? ` ${metric.unit}` : "";
  return (value) => `${decimals === null ? Number(value.toPrecision(4)) : value.toFixed(decimals)}${unit}`;
}

function figureOf(result, metric) {
  const figure = result.figures[metric.name];
  if (!figure) return null;
  const factor = metric.percent ? 100 : 1;
  const seeds = Object.fromEntries(Object.entries(figure.seeds).map(([seed, value]) => [seed, value * factor]));
  return { mean: figure.mean * factor, std: figure.std === null ? null : figure.std * factor, n: figure.n, seeds };
}

function telling(title, figure, metric) {
  const format = formatter(metric);
  const spread = figure.std === null ? "" : ` \u00b1 ${format(figure.std)}`;
  return `${title}\n${metric.name.replaceAll("_", " ")} ${format(figure.mean)}${spread}, n = ${figure.n}`;
}

// Lines for the teacher and the student alone, where there is one of each.
function referencesOf(results, metric) {
  const kinds = [["alone", "student alone", "var(--c7)"], ["teacher", "teacher", "var(--c4)"]];
  return kinds.flatMap(([role, name, colour]) => {
    const found = results.filter((result) => result.role === role && figureOf(result, metric));
    if (found.length !== 1) return [];
    const y = figureOf(found[0], metric).mean;
    return [{ name: `${name} ${formatter(metric)(y)}`, y, colour }];
  });
}

const fixedKeys = ["dataset", "student"];  // results of different ones have nothing to do with each other

function panels(results) {
  const keys = data.keys.map((each) => each.key).filter((key) => fixedKeys.includes(key));
  const groups = new Map();
  for (const result of results) {
    if (result.role === "teacher" && keys.includes("student")) continue;
    const name = keys.map((key) => result.values[key]).join(", ");
    groups.set(name, [...(groups.get(name) || []), result]);
  }
  return [...groups].map(([name, members]) => ({ name, members }));
}

// ---- overview ----

function overview() {
  const { controls, charts } = section("overview");
  if (!charts || !data.results.length || !data.metrics.length) return;
  const most = 40;
  const show = (name) => {
    const metric = metricNamed(name);
    charts.replaceChildren();
    for (const panel of panels(data.results)) {
      const found = panel.members.filter((result) => result.sweeps && figureOf(result, metric));
      found.sort((a, b) => (metric.direction === "max" ? -1 : 1) * (figureOf(a, metric).mean - figureOf(b, metric).mean));
      if (!found.length) continue;
      const several = unique(found.map(bareName)).length > 1;
      const rows = found.slice(0, most).map((result) => {
        const figure = figureOf(result, metric);
        return { label: several ? result.title : result.setting || result.name, marks: [{ ...figure, seeds: Object.values(figure.seeds), colour: "var(--c0)", group: "", text: telling(result.title, figure, metric) }] };
      });
      const note = found.length > most ? `the best ${most} of ${found.length}; the table has all` : panel.name;
      dotChart(charts, { title: metric.axis, note, rows, references: referencesOf(panel.members, metric), xLabel: metric.axis });
    }
  };
  if (data.metrics.length > 1) control(controls, "Metric", data.metrics.map((metric) => [metric.name, metric.name.replaceAll("_", " ")]), data.metrics[0].name, show);
  show(data.metrics[0].name);
}

// ---- sweep ----

function sweepKeys() {
  return data.keys.filter((each) => unique(data.results.filter((result) => result.sweeps).map((result) => result.values[each.key]).filter((value) => value !== null && value !== undefined)).length > 1);
}

function sweep() {
  const { controls, charts } = section("sweep");
  const keys = sweepKeys();
  if (!keys.length || !data.metrics.length) return drop("sweep");
  const show = (name) => {
    charts.replaceChildren();
    keys.forEach((key) => sweepChart(charts, key, keys, metricNamed(name)));
    for (let a = 0; a < Math.min(3, keys.length); a += 1) {
      for (let b = a + 1; b < Math.min(3, keys.length); b += 1) heatMap(charts, keys[a], keys[b], metricNamed(name));
    }
  };
  if (data.metrics.length > 1) control(controls, "Metric", data.metrics.map((metric) => [metric.name, metric.name.replaceAll("_", " ")]), data.metrics[0].name, show);
  show(data.metrics[0].name);
}

function sweepChart(host, key, keys, metric) {
  const results = data.results.filter((result) => result.sweeps && figureOf(result, metric) && ![null, undefined].includes(result.values[key.key]));
  if (!results.length) return;
  const others = keys.filter((each) => each.key !== key.key);
  const groupOf = (result) => [...others.filter((each) => ![null, undefined].includes(result.values[each.key])).map((each) => `${each.label}=${result.values[each.key]}`), ...namesDiffer(results, result)].join(", ") || "all";
  const places = (result) => others.map((each) => ordered(results.map((other) => other.values[each.key])).indexOf(result.values[each.key]));
  const inOrder = results.map((result) => [places(result), groupOf(result)]).sort(([a], [b]) => a.map((place, index) => place - b[index]).find(Boolean) || 0);
  const groups = unique(inOrder.map(([, group]) => group));
  const values = ordered(results.map((result) => result.values[key.key]));
  const colours = Object.fromEntries(groups.map((group, index) => [group, groups.length > COLOURS ? "var(--c7)" : colourOf(index, groups.length, false)]));
  const references = fixedKeys.some((fixed) => data.keys.some((each) => each.key === fixed)) ? [] : referencesOf(data.results, metric);
  const common = { title: key.label, note: key.key === key.label ? "" : key.key, references };
  if (!values.every(isNumber)) {
    const rows = values.map((value) => ({
      label: String(value),
      marks: results.filter((result) => result.values[key.key] === value).map((result) => {
        const figure = figureOf(result, metric), group = groupOf(result);
        return { ...figure, seeds: Object.values(figure.seeds), colour: colours[group], group, text: telling(result.title, figure, metric) };
      }),
    }));
    return dotChart(host, { ...common, rows, xLabel: metric.axis });
  }
  const numbers = values.map(Number), least = Math.min(...numbers), most = Math.max(...numbers);
  const kind = least > 0 && most / least >= 8 ? "log" : "linear";
  const series = groups.map((group, index) => {
    const points = results.filter((result) => groupOf(result) === group).map((result) => {
      const figure = figureOf(result, metric);
      return { x: Number(result.values[key.key]), y: figure.mean, std: figure.std, seeds: figure.seeds, text: telling(result.title, figure, metric) };
    }).sort((a, b) => a.x - b.x);
    const seeds = groups.length > COLOURS ? [] : points.flatMap((point) => Object.values(point.seeds).map((y) => ({ x: point.x, y })));
    const shift = groups.length > COLOURS ? 0 : (index - (groups.length - 1) / 2) * 5;
    return { name: group, group: groups.length > COLOURS ? "each of the other settings" : group, colour: colours[group], points, seeds, shift, thin: groups.length > COLOURS };
  });
  if (groups.length > COLOURS) series.push(meanSeries(series, numbers, metric));
  lineChart(host, { ...common, series, x: { kind, label: key.label, ticks: values, room: 0.1 }, yLabel: metric.axis, format: formatter(metric) });
}

// The name of a network without that of the method, which has a place of its own.
const bareName = (result) => result.name.split(" with ")[0];

function namesDiffer(results, result) {
  return unique(results.map(bareName)).length > 1 ? [bareName(result)] : [];
}

function meanSeries(series, numbers, metric) {
  const name = "mean over the other settings", format = formatter(metric);
  const points = numbers.map((x) => {
    const ys = series.flatMap((each) => each.points.filter((point) => point.x === x).map((point) => point.y));
    const y = ys.reduce((a, b) => a + b, 0) / ys.length;
    return { x, y, text: `${name}\n${format(y)} of ${ys.length}` };
  });
  return { name, group: name, colour: "var(--c0)", points };
}

function heatMap(host, first, second, metric) {
  const results = data.results.filter((result) => result.sweeps && figureOf(result, metric));
  const known = results.filter((result) => [first, second].every((each) => ![null, undefined].includes(result.values[each.key])));
  const [rows, columns] = [first, second].map((each) => ordered(known.map((result) => result.values[each.key])));
  if (rows.length < 2 || columns.length < 2 || rows.length > 20 || columns.length > 20) return;
  const cell = (row, column) => {
    const found = known.filter((result) => result.values[first.key] === row && result.values[second.key] === column).map((result) => figureOf(result, metric).mean);
    return found.length ? { mean: found.reduce((a, b) => a + b, 0) / found.length, count: found.length } : null;
  };
  const cells = rows.map((row) => columns.map((column) => cell(row, column)));
  const means = cells.flat().filter(Boolean).map((each) => each.mean), low = Math.min(...means), high = Math.max(...means), format = formatter(metric);
  const head = make("tr", {}, make("th", { class: "corner" }, `${first.label} \u2193  ${second.label} \u2192`), ...columns.map((column) => make("th", {}, String(column))));
  const body = cells.map((line, index) => make("tr", {}, make("th", {}, String(rows[index])), ...line.map((each) => {
    if (each === null) return make("td", {}, "-");
    const share = high > low ? Math.round(60 * (metric.direction === "max" ? each.mean - low : high - each.mean) / (high - low)) : 0;
    return make("td", { style: `background: color-mix(in oklab, var(--c0) ${share}%, var(--panel))`, title: each.count > 1 ? `mean of ${each.count} results` : null }, format(each.mean));
  })));
  const table = make("table", { class: "heat" }, make("thead", {}, head), make("tbody", {}, ...body));
  host.append(make("figure", { class: "chart" }, make("h3", {}, `${first.label} and ${second.label}`, make("small", {}, ` ${metric.axis}`)), make("div", { class: "scroll", tabindex: 0 }, table)));
}

// ---- curves ----

function curves() {
  const { controls, charts } = section("curves");
  const stages = unique(data.runs.flatMap((run) => Object.keys(run.curves)));
  if (!stages.length) return drop("curves");
  const chosen = { stage: stages.at(-1), figure: "", colour: "", words: "" };
  const figuresOf = (stage) => unique(data.runs.flatMap((run) => Object.keys(run.curves[stage] || {})));
  const preferred = (stage) => {
    const names = figuresOf(stage), leading = data.metrics.map((metric) => `_${metric.name}`);
    const wanted = leading.flatMap((ending) => names.filter((name) => name.endsWith(ending) && !name.startsWith("train") && !name.startsWith("loss_")));
    return wanted[0] || names.find((name) => name === "loss_total") || names[0];
  };
  const keys = data.keys.filter((each) => unique(data.runs.map((run) => run.values[each.key])).length > 1);
  const seeds = unique(data.runs.map((run) => run.seed)).length > 1;
  const options = [...keys.map((each) => [each.key, each.label]), ...(seeds ? [["seed", "seed"]] : []), ["run", "run"]];
  chosen.colour = options[0][0];
  chosen.figure = preferred(chosen.stage);
  const valueOf = (run) => chosen.colour === "run" ? run.path : chosen.colour === "seed" ? run.seed : run.values[chosen.colour];
  const show = () => {
    charts.replaceChildren();
    const words = chosen.words.toLowerCase().split(/\s+/).filter(Boolean);
    const runs = data.runs.filter((run) => (run.curves[chosen.stage] || {})[chosen.figure] !== undefined).filter((run) => words.every((word) => textOf(run).includes(word)));
    if (!runs.length) return charts.append(make("p", {}, "No run has this curve."));
    const label = (value) => [null, undefined].includes(value) ? "none" : String(value);
    const groups = ordered(runs.map((run) => label(valueOf(run)))), numeric = groups.every(isNumber);
    const metric = data.metrics.find((each) => chosen.figure.endsWith(`_${each.name}`)), factor = metric && metric.percent ? 100 : 1, format = formatter(metric);
    const series = runs.map((run) => {
      const [xs, ys] = data.curves[run.curves[chosen.stage][chosen.figure]], group = label(valueOf(run));
      const points = xs.map((x, index) => ({ x, y: ys[index] * factor, text: `${run.path}, seed ${label(run.seed)}\n${describe(run)}\nepoch ${x}: ${format(ys[index] * factor)}` }));
      return { name: run.path, group, colour: colourOf(groups.indexOf(group), groups.length, numeric), points, thin: runs.length > 4 };
    });
    const title = `${chosen.stage}: ${chosen.figure.replaceAll("_", " ")}`;
    lineChart(charts, { title, note: `${runs.length} run${runs.length === 1 ? "" : "s"}`, series, x: { kind: "linear", label: "epoch", whole: true }, yLabel: metric && metric.percent ? "%" : "", format });
  };
  const stage = stages.length > 1 ? control(controls, "Stage", stages.map((name) => [name, name]), chosen.stage, (value) => {
    chosen.stage = value;
    chosen.figure = figuresOf(value).includes(chosen.figure) ? chosen.figure : preferred(value);
    fill();
    show();
  }) : null;
  const figure = control(controls, "Figure", [], "", (value) => { chosen.figure = value; show(); });
  const fill = () => {
    figure.replaceChildren(...figuresOf(chosen.stage).map((name) => make("option", { value: name }, name.replaceAll("_", " "))));
    figure.value = chosen.figure;
  };
  fill();
  if (options.length > 1) control(controls, "Colour", options, chosen.colour, (value) => { chosen.colour = value; show(); });
  controls.append(make("label", {}, "Runs", make("input", { type: "search", placeholder: "words", "aria-label": "Filter the runs", oninput: (event) => { chosen.words = event.target.value; show(); } })));
  show();
}

function describe(run) {
  return data.keys.filter((each) => ![null, undefined].includes(run.values[each.key])).map((each) => `${each.label}=${run.values[each.key]}`).join(", ");
}

const textOf = (run) => `${run.path} ${describe(run)} seed=${run.seed} ${run.state}`.toLowerCase();

// ---- in depth ----

const percent = (value) => value === null || value === undefined ? "-" : `${(100 * value).toFixed(2)}%`;

function depth() {
  const { controls, charts } = section("depth");
  if (!charts) return;
  const show = (place) => {
    const each = data.depth[Number(place)];
    charts.replaceChildren();
    fidelityTable(charts, each);
    if (each.calibration) reliability(charts, each);
    classes(charts, each);
    confusions(charts, each);
    if (each.similarity) alignment(charts, each.similarity, each.network);
    examples(charts, each.examples);
    if (each.left_out.length) charts.append(plate("Not there", "", make("ul", {}, ...each.left_out.map((text) => make("li", {}, text)))));
  };
  control(controls, "Evaluation", data.depth.map((each, index) => [String(index), `${each.run}: ${each.name.replaceAll("_", " ")}`]), "0", show);
  show("0");
}

function plate(title, note, ...children) {
  return make("figure", { class: "chart" }, make("h3", {}, title, note ? make("small", {}, ` ${note}`) : null), ...children);
}

function grid(head, rows, attributes = {}) {
  const line = (cells, tag) => make("tr", {}, ...cells.map((cell) => cell instanceof Node ? cell : make(tag, {}, String(cell))));
  return make("div", { class: "scroll", tabindex: 0 }, make("table", { class: "heat", ...attributes }, make("thead", {}, line(head, "th")), make("tbody", {}, ...rows.map((row) => line(row, "td")))));
}

function tinted(share, text, title = null) {
  return make("td", { style: `background: color-mix(in oklab, var(--c0) ${Math.round(60 * Math.max(0, Math.min(1, share)))}%, var(--panel))`, title }, text);
}

function fidelityTable(host, each) {
  const rows = [["images", each.count], ["accuracy", percent(each.accuracy)]];
  if (each.calibration) rows.push(["mean confidence", percent(each.calibration.confidence)], ["ECE", percent(each.calibration.ece)]);
  const names = { agreement: "same class as the teacher", both_right: "both right", only_teacher: "only the teacher right", only_student: "only the student right", both_wrong: "both wrong", same_mistake: "the same mistake" };
  if (each.fidelity) {
    rows.push(...Object.entries(names).map(([key, name]) => [name, percent(each.fidelity[key])]));
    rows.push(["KL(teacher || student), nats", each.fidelity.kl.toFixed(4)]);
  }
  host.append(plate(`${each.network} on ${each.dataset}`, each.split, grid(["", ""], rows, { class: "heat facts" })));
}

function reliability(host, each) {
  const networks = [[each.network, each.calibration, "var(--c0)"], ["teacher", each.teacher_calibration, "var(--c1)"]].filter(([, found]) => found);
  const series = networks.map(([name, found, colour]) => {
    const group = `${name}, ECE ${percent(found.ece)}`;
    const points = found.bins.filter((bin) => bin.count).map((bin) => ({ x: 100 * bin.confidence, y: 100 * bin.accuracy, text: `${name}\nconfidence ${percent(bin.confidence)}\naccuracy ${percent(bin.accuracy)}\n${bin.count} images` }));
    return { name, group, colour, points };
  });
  series.push({ name: "calibrated", group: "calibrated", colour: "var(--c7)", thin: true, points: [0, 100].map((x) => ({ x, y: x, text: "calibrated" })) });
  lineChart(host, { title: "Reliability", series, x: { kind: "linear", label: "confidence (%)", room: 0 }, yLabel: "accuracy (%)", format: (value) => `${value.toFixed(1)}%` });
}

function classes(host, each) {
  const most = 25, known = each.per_class.filter((line) => line.accuracy !== null).sort((a, b) => a.accuracy - b.accuracy);
  if (!known.length) return;
  const rows = known.slice(0, most).map((line) => ({
    label: line.class,
    marks: [["accuracy", each.network, "var(--c0)"], ["teacher_accuracy", "teacher", "var(--c1)"]].filter(([key]) => line[key] !== null && line[key] !== undefined).map(([key, group, colour]) => ({ mean: 100 * line[key], std: null, seeds: [], colour, group, text: `${line.class}, ${group}\n${percent(line[key])}${line.count === null ? "" : ` of ${line.count}`}` })),
  }));
  dotChart(host, { title: "By class", note: known.length > most ? `the lowest ${most} of ${known.length}` : "", rows, xLabel: "accuracy of the class (%)" });
}

function confusions(host, each) {
  const names = each.per_class.map((line) => line.class);
  if (!each.confusion.length) return;
  if (names.length > 40) {
    const rows = each.confusion.filter(([i, j]) => i !== j).map(([i, j, count]) => [names[i], names[j], count]);
    return host.append(plate("Most frequent confusions", "", grid(["class", "taken for", "images"], rows)));
  }
  const counts = new Map(each.confusion.map(([i, j, count]) => [`${i} ${j}`, count]));
  const rows = names.map((name, i) => [make("th", {}, name), ...names.map((other, j) => {
    const count = counts.get(`${i} ${j}`) || 0;
    return tinted(count / (each.per_class[i].count || 1), count ? String(count) : "", `${name} taken for ${other}: ${count}`);
  })]);
  host.append(plate("Confusions", "true class \u2193, taken for \u2192", grid(["", ...names], rows)));
}

function alignment(host, found, network) {
  const rows = found.rows.map((name, i) => [make("th", {}, name), ...found.cka[i].map((value) => value === null ? "-" : tinted(value, value.toFixed(2)))]);
  host.append(plate("Activations", `linear CKA of ${found.images} images: ${network} \u2193, teacher \u2192`, grid(["", ...found.columns], rows)));
}

function examples(host, found) {
  if (!found.length) return;
  const cards = found.map((each) => make("li", {},
    each.image ? make("img", { src: each.image, alt: `image ${each.index}` }) : make("span", { class: "blank" }, `image ${each.index}`),
    make("span", {}, make("b", {}, each.true), ` image ${each.index}`),
    make("small", {}, `student ${each.student}, ${percent(each.student_confidence)}`),
    make("small", {}, `teacher ${each.teacher}, ${percent(each.teacher_confidence)}`)));
  const place = plate("Where they disagree", "the teacher right and the student sure come first", make("ul", { class: "examples" }, ...cards));
  place.classList.add("whole");
  host.append(place);
}

overview();
sweep();
curves();
depth();
})();

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
  new ResizeObserver(() => requestAnimationFrame(fit)).observe(place);  // what it changes is of the next frame
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
  const most = Math.max(2, (place.right - place.left) / 80);
  const spaced = niceTicks(low, high, x.whole ? Math.max(1, Math.min(most, high - low)) : most);
  const ticks = x.ticks || spaced.ticks.filter((tick) => !x.whole || Number.isInteger(tick) && tick >= least);
  let last = -Infinity;
  for (const tick of ticks) {
    const label = x.ticks || x.whole ? String(tick) : shown(tick, spaced.step), at = toX(Number(tick));
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

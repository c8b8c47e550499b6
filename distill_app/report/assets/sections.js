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
  const count = (stage) => data.runs.filter((run) => stage in run.curves).length;
  const common = stages.reduce((best, stage) => (count(stage) >= count(best) ? stage : best));  // of most runs, the last
  const chosen = { stage: common, figure: "", colour: "", words: "" };
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

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

// ---- the page ----

overview();
sweep();
curves();
depth();

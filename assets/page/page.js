// The page itself.
"use strict";
const SERIES = [
  ["reserved", "reserved-fill"], ["active", null], ["allocated", "allocated-fill"], ["requested", null],
];
const page = { run: null, runs: [], time: 0, charts: [], stacks: null, errors: [] };
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const confText = (conf) => conf || "(default settings)";

// Fewer points than pixels need, with the least and the most of every column of pixels.
function thinned(run, names, from, to, columns) {
  const first = Math.max(run.t0, Math.floor(from)), last = Math.min(run.t1, Math.ceil(to));
  const count = last - first + 1;
  if (count <= 4 * columns) {
    const x = Float64Array.from({ length: count }, (_, i) => first + i);
    return [x, ...names.map((name) => run.levels[name].subarray(first - run.t0, last - run.t0 + 1))];
  }
  const step = count / columns;
  const x = new Float64Array(2 * columns), ys = names.map(() => new Float64Array(2 * columns));
  for (let c = 0; c < columns; c++) {
    const begin = Math.floor(c * step), end = Math.max(begin + 1, Math.floor((c + 1) * step));
    x[2 * c] = first + begin;
    x[2 * c + 1] = first + (begin + end) / 2;
    names.forEach((name, s) => {
      const column = run.levels[name];
      let min = Infinity, max = -Infinity, isRising = true;
      for (let i = begin; i < end; i++) {
        const value = column[first - run.t0 + i];
        if (value < min) { min = value; isRising = false; }
        if (value > max) { max = value; isRising = true; }
      }
      ys[s][2 * c] = isRising ? min : max;
      ys[s][2 * c + 1] = isRising ? max : min;
    });
  }
  return [x, ...ys];
}

// The stretches of a series that was thinned before: from one to the next.
function stretches(run, from, to) {
  const times = run.stretchTime, n = times.length;
  let a = 0, b = n;
  while (a + 1 < n && times[a + 1] < from) a++;
  while (b > a + 1 && times[b - 1] > to) b--;
  return [times.subarray(a, b), run.freeMax.subarray(a, b), run.scatteredMax.subarray(a, b)];
}

const gibText = (value) => {
  if (value === 0) return "0";
  const unit = value >= 1073741824 ? ["GiB", 1073741824] : value >= 1048576 ? ["MiB", 1048576] : ["KiB", 1024];
  return `${+(value / unit[1]).toFixed(2)} ${unit[0]}`;
};

// Steps of 1, 2, 5 × 10^k bytes look odd in GiB.
function binaryTicks(u, axis, min, max, space) {
  const wanted = (max - min) * Math.max(30, space) / Math.max(1, u.bbox.height / devicePixelRatio);
  let step = 1;
  while (step < wanted) step *= 2;
  const ticks = [];
  for (let tick = Math.ceil(min / step) * step; tick <= max; tick += step) ticks.push(tick);
  return ticks;
}

function axes(hasLabel) {
  const look = { stroke: css("quiet"), grid: { stroke: css("line"), width: 1 }, ticks: { stroke: css("line"), width: 1 }, font: "12px system-ui, sans-serif" };
  return [
    { ...look, label: hasLabel ? "operations done" : undefined, labelFont: "12px system-ui, sans-serif", labelSize: 16, size: 32,
      values: (u, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick.toLocaleString("en") : "")) },
    { ...look, size: 84, splits: (u, i, min, max, incr, space) => binaryTicks(u, i, min, max, 40), values: (u, ticks) => ticks.map(gibText) },
  ];
}

function options(width, height, series, run, hasLabel, drawMarks) {
  return {
    width, height, padding: [10, 34, 0, 0], legend: { show: false }, axes: axes(hasLabel),
    cursor: { sync: { key: "time" }, drag: { x: true, y: false }, points: { show: false } },
    scales: {
      x: { time: false, range: (u, min, max) => [Math.max(run.t0, min), Math.max(Math.min(run.t1, max), run.t0 + 1)] },
      y: { range: (u, min, max) => [0, highest(run, max, hasLabel)] },
    },
    series: [{}, ...series],
    hooks: { draw: [(u) => { drawMarks(u); drawTime(u); }], setScale: [(u, key) => { if (key === "x") zoomed(u); }] },
  };
}

// The capacity belongs in the picture where it is near.
function highest(run, max, isMemory) {
  const high = Math.max(max || 0, 1024);
  return isMemory && run.capacity && run.capacity < 1.6 * high && run.capacity >= high ? run.capacity * 1.06 : high * 1.08;
}

function vertical(u, time, colour, dash, width = 1.5) {
  const x = u.valToPos(time, "x", true), { left, top, width: wide, height } = u.bbox;
  if (x < left || x > left + wide) return null;
  const context = u.ctx;
  context.save();
  context.strokeStyle = colour; context.lineWidth = width * devicePixelRatio;
  context.setLineDash((dash || []).map((d) => d * devicePixelRatio));
  context.beginPath(); context.moveTo(x, top); context.lineTo(x, top + height); context.stroke();
  context.restore();
  return x;
}

function drawTime(u) { vertical(u, page.time, css("text"), null, 1.5); }

function drawMarks(u) {
  const { run } = page, context = u.ctx, ratio = devicePixelRatio;
  context.save();
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  if (run.capacity) {
    const y = u.valToPos(run.capacity, "y", true), { left, top, width } = u.bbox;
    if (y >= top) {
      context.strokeStyle = css("capacity"); context.lineWidth = 1.2 * ratio; context.setLineDash([6 * ratio, 4 * ratio]);
      context.beginPath(); context.moveTo(left, y); context.lineTo(left + width, y); context.stroke();
      context.setLineDash([]); context.fillStyle = css("capacity");
      context.textAlign = "left"; context.textBaseline = "bottom";
      context.fillText(`capacity ${bytesText(run.capacity)}`, left + 6 * ratio, y - 3 * ratio);
    }
  }
  let right = -Infinity;
  for (const mark of run.meta.marks) {
    if (mark.kind === "retry") {
      const x = u.valToPos(mark.time, "x", true), { left, top, width, height } = u.bbox;
      if (x < left || x > left + width) continue;
      context.fillStyle = css("active");
      context.beginPath(); context.moveTo(x, top + height - 9 * ratio); context.lineTo(x - 4 * ratio, top + height); context.lineTo(x + 4 * ratio, top + height); context.fill();
      continue;
    }
    const colour = mark.kind === "served" ? css("good") : css("bad");
    const x = vertical(u, mark.time, colour, [5, 3], 2);
    if (x === null || x < right) continue;
    const text = mark.kind === "served" ? `served now: ${bytesText(mark.size)}` : `out of memory: ${bytesText(mark.size)}`;
    const size = context.measureText(text).width, isLeft = x + size + 10 * ratio > u.bbox.left + u.bbox.width;
    context.fillStyle = colour; context.textBaseline = "top"; context.textAlign = isLeft ? "right" : "left";
    context.fillText(text, x + (isLeft ? -6 : 6) * ratio, u.bbox.top + 26 * ratio);
    right = x + size + 20 * ratio;
  }
  context.restore();
}

let isZooming = false;
// Other times are in view: as many points as there are pixels, in both charts.
function zoomed(u) {
  if (isZooming || page.charts.length < 2) return;
  isZooming = true;
  const { min, max } = u.scales.x;
  for (const chart of page.charts) {
    fill(chart, min, max);
    chart.setScale("x", { min, max });
  }
  isZooming = false;
}

function fill(chart, min, max) {
  const { run } = page, columns = Math.max(200, Math.floor(chart.width - 90));
  const names = SERIES.map(([name]) => name);
  chart.setData(chart === page.charts[0] ? thinned(run, names, min, max, columns) : stretches(run, min, max), false);
}

function makeCharts() {
  for (const chart of page.charts) chart.destroy();
  page.charts = [];
  const { run } = page, width = $("memory").clientWidth;
  const stepped = uPlot.paths.stepped({ align: 1 });
  const line = ([name, fillName]) => ({
    stroke: css(name), fill: fillName ? css(fillName) : undefined, width: 1.5, points: { show: false }, paths: stepped,
  });
  const memory = new uPlot(options(width, 330, SERIES.map(line), run, true, drawMarks), [[], [], [], [], []], $("memory"));
  const free = new uPlot(
    options(width, 150, [
      { stroke: css("reserved"), fill: css("reserved-fill"), width: 1.5, points: { show: false }, paths: stepped },
      { stroke: css("scattered"), width: 1.5, points: { show: false }, paths: stepped },
    ], run, false, () => {}), [[], [], []], $("free"));
  page.charts = [memory, free];
  for (const chart of page.charts) {
    let pressed = null;
    chart.over.addEventListener("mousedown", (event) => { pressed = event.clientX; });
    chart.over.addEventListener("mouseup", (event) => {
      if (pressed === null || Math.abs(event.clientX - pressed) > 3) return;
      setTime(Math.round(chart.posToVal(event.clientX - chart.over.getBoundingClientRect().left, "x")));
    });
    chart.over.addEventListener("dblclick", () => wholeTime());
    chart.over.addEventListener("mousemove", (event) => chartTip(event, chart));
    chart.over.addEventListener("mouseleave", hideTip);
  }
  wholeTime();
}

function wholeTime() {
  const { run } = page;
  isZooming = true;
  for (const chart of page.charts) {
    fill(chart, run.t0, run.t1);
    chart.setScale("x", { min: run.t0, max: run.t1 });
  }
  isZooming = false;
}

function legend(box, parts) {
  box.replaceChildren(...parts.map(([name, colour]) => {
    const span = element("span"), mark = element("i");
    mark.style.background = `var(--${colour})`;
    span.append(mark, name);
    return span;
  }));
}

// Where allocations have labels instead of stacks, the map shows them.
function colourByLabel() {
  const [texts, , stacks] = page.stacks, select = $("colour");
  select.querySelector("option[value=stack]").textContent = "label";
  select.value = page.map.colour = "stack";
  const parts = stacks.map((frames, i) => {
    const span = element("span", texts[frames[0]]), mark = element("i");
    mark.style.background = stackColour(i + 1);
    span.prepend(mark);
    return span;
  });
  $("map-legend").firstChild.replaceWith(...parts);
}

function showTip(event, ...children) {
  const tip = $("tip");
  tip.replaceChildren(...children);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const x = event.clientX + 16 + box.width > innerWidth ? event.clientX - box.width - 12 : event.clientX + 16;
  const y = Math.min(event.clientY + 14, innerHeight - box.height - 8);
  tip.style.left = `${Math.max(4, x)}px`; tip.style.top = `${Math.max(4, y)}px`;
}

function hideTip() { $("tip").hidden = true; }

function chartTip(event, chart) {
  const { run } = page;
  const time = Math.round(chart.posToVal(event.clientX - chart.over.getBoundingClientRect().left, "x"));
  if (time < run.t0 || time > run.t1) return hideTip();
  const lines = SERIES.map(([name]) => element("div", `${name} ${bytesText(run.level(name, time))}`));
  showTip(event, element("b", `after ${time.toLocaleString("en")} operations`), ...lines);
}

// One moment.
function setTime(time) {
  const { run } = page;
  page.time = Math.min(Math.max(run.t0, time || 0), run.t1);
  page.state = run.state(page.time);
  $("time").value = page.time;
  for (const chart of page.charts) chart.redraw(false, false);
  showLevels();
  page.map.show(page.state);
  showScale();
  showFree();
}

function showLevels() {
  const { run, state, time } = page, reserved = run.level("reserved", time);
  const free = state.gaps.reduce((sum, gap) => sum + gap.size, 0);
  const largest = state.gaps.reduce((most, gap) => Math.max(most, gap.size), 0);
  const rows = [
    ...SERIES.map(([name]) => [name, bytesText(run.level(name, time))]),
    ["free in the cache", bytesText(free)], ["largest free block", bytesText(largest)],
    ["waiting for a stream", bytesText(state.pending)],
  ];
  if (run.capacity) rows.push(["not reserved", bytesText(Math.max(0, run.capacity - reserved))]);
  page.sums = { reserved, free, largest, pending: state.pending, blocks: state.rows.length, segments: state.segments.length };
  $("levels").replaceChildren(...rows.map(([name, value]) => {
    const box = element("div");
    box.append(element("dt", name), element("dd", value));
    return box;
  }));
}

function showScale() {
  $("scale").textContent = `1 pixel = ${bytesText(Math.round(page.map.perPixel))}`;
}

function showFree() {
  const { run, state } = page, text = $("request").value, bytes = parseBytes(text);
  const wanted = run.places[$("place").value] || { pool: null, stream: "0x0" };
  $("request-error").textContent = bytes === null || bytes === 0 ? "write a size such as 512, 20MiB or 1.5GiB" : "";
  if (!bytes) return;
  const rows = freeTable(state, bytes, wanted), fits = rows.find((row) => row.why === "");
  const { rules } = run.meta, reserved = run.level("reserved", page.time);
  const left = rules.available === null ? null : Math.max(0, rules.available - reserved);
  const segment = rules.expandable ? "" : ` (a segment of ${bytesText(segmentSize(roundedSize(bytes, rules), rules))})`;
  const free = rows.reduce((sum, row) => sum + row.bytes, 0);
  const answer = $("answer");
  answer.className = fits ? "good" : "bad";
  answer.textContent = fits
    ? `A free block would serve ${bytesText(bytes)}: the largest that may has ${bytesText(fits.largest)}.`
    : `No free block would serve ${bytesText(bytes)}, although ${bytesText(free)} are not in use. It needs new memory from the device${segment}${left === null ? "." : `, where ${bytesText(left)} are left before anything cached is given back.`}`;
  const head = element("tr");
  for (const name of ["where", "why it does not serve"]) head.append(element("th", name, "left"));
  for (const name of ["bytes", "blocks", "largest"]) head.append(element("th", name));
  $("unusable").replaceChildren(head, ...rows.map((row) => {
    const line = element("tr");
    line.append(
      element("td", placeText(row.place), "left"),
      element("td", whyText(row) || "it would serve", row.why ? "left" : "left good"),
      element("td", bytesText(row.bytes)), element("td", row.blocks.toLocaleString("en")), element("td", bytesText(row.largest)));
    return line;
  }));
}

// A block in words.
function blockParts(found) {
  const { run, time } = page;
  if (found.unmapped !== undefined) return [element("b", `nothing is mapped here: ${bytesText(found.unmapped)}`), element("div", "not to scale")];
  const place = placeText(run.places[found.segment.place]);
  const inside = `${place}; in a ${run.places[found.segment.place].expandable ? "mapped range" : "segment"} of ${bytesText(found.segment.end - found.segment.addr)}`;
  if (found.gap) return [element("b", `free: ${bytesText(found.gap.size)}`), element("div", `at 0x${found.gap.addr.toString(16)}`), element("div", inside)];
  const row = found.row, freed = run.freed[row];
  const ends = freed === NEVER ? "never freed here" : `freed by operation ${(freed - 1).toLocaleString("en")}`;
  const state = freed <= time ? "waits for another stream" : "handed out";
  const from = run.born[row] ? `since operation ${(run.born[row] - 1).toLocaleString("en")}` : "since before the first operation";
  const parts = [
    element("b", `${bytesText(run.size[row])} ${state}`),
    element("div", `requested ${bytesText(run.requested[row])}, at 0x${run.addr[row].toString(16)}`),
    element("div", `${from} (${(time - run.born[row]).toLocaleString("en")} operations ago), ${ends}`),
    element("div", inside),
  ];
  const [texts, own, stacks] = page.stacks, stack = run.stack[row] ? stacks[run.stack[row] - 1] : null;
  if (stack) {
    const list = element("ol");
    const lines = stack.filter((id) => own[id]).concat(stack.filter((id) => !own[id]));
    for (const id of lines) list.append(element("li", texts[id], own[id] ? "own" : ""));
    parts.push(list);
  }
  return parts;
}

function shortened(parts) {
  for (const list of parts.filter((part) => part.tagName === "OL")) {
    const more = list.children.length - 8;
    while (list.children.length > 8) list.lastChild.remove();
    if (more > 0) list.append(element("li", `… ${more} more; click to see all`));
  }
  return parts;
}

function mapEvents() {
  const canvas = $("map-canvas");
  const found = (event) => {
    const box = canvas.getBoundingClientRect();
    return page.map.at(event.clientX - box.left, event.clientY - box.top);
  };
  canvas.addEventListener("mousemove", (event) => {
    const what = found(event);
    if (what) showTip(event, ...shortened(blockParts(what))); else hideTip();
  });
  canvas.addEventListener("mouseleave", hideTip);
  canvas.addEventListener("click", (event) => {
    const what = found(event);
    if (!what) return;
    page.map.kept = what.row ?? null;
    $("block").classList.remove("quiet");
    $("block").replaceChildren(...blockParts(what));
    page.map.draw();
  });
}

function jumps() {
  const { run } = page, { worst } = run.meta.replay, { verdict } = run.meta;
  const places = [
    ["most allocated", worst.allocated.op + 1], ["most reserved", worst.reserved.op + 1],
    ["worst fragmentation", worst.stranded.op], ["end", run.t1],
  ];
  if (verdict.at !== null) places.unshift(["the failed request", verdict.at]);
  $("jumps").replaceChildren(...places.filter(([, time]) => run.t0 <= time && time <= run.t1).map(([name, time]) => {
    const button = element("button", name);
    button.addEventListener("click", () => setTime(time));
    return button;
  }));
}

function showVerdict() {
  const { run, runs } = page, { verdict, replay } = run.meta;
  const capacity = replay.capacity ? `capacity ${bytesText(replay.capacity)}` : "no capacity limit";
  $("what").textContent = `${replay.file} on cuda:${replay.device}, PyTorch ${replay.torch}, ${capacity}, ${confText(replay.conf)}`;
  $("headline").textContent = verdict.headline;
  $("headline").className = verdict.survives ? "good" : "bad";
  $("because").textContent = verdict.because;
  $("others").replaceChildren(...runs.filter((other) => other !== run).map((other) => {
    const line = element("li"), fate = other.meta.verdict;
    line.append("With ", element("code", confText(other.meta.conf)), ": ", element("span", fate.headline, fate.survives ? "good" : "bad"));
    return line;
  }));
}

function showRuns() {
  const columns = [
    ["peak allocated", (r) => r.worst.allocated.allocated_bytes, bytesText],
    ["peak reserved", (r) => r.worst.reserved.reserved_bytes, bytesText],
    ["reserved beyond allocated", (r) => r.worst.reserved.reserved_bytes - r.worst.allocated.allocated_bytes, bytesText],
    ["retries", (r) => r.stats.num_alloc_retries, String],
    ["device calls", (r) => r.device_calls.malloc + r.device_calls.free + r.device_calls.map + r.device_calls.unmap, (n) => n.toLocaleString("en")],
  ];
  const head = element("tr");
  head.append(element("th", "settings", "left"), element("th", "all served?", "left"), ...columns.map(([name]) => element("th", name)));
  const alive = page.runs.filter((run) => run.meta.verdict.survives);
  const body = element("tbody");
  page.runs.forEach((run, i) => {
    const line = element("tr", undefined, run === page.run ? "chosen" : ""), { verdict, replay } = run.meta;
    const name = element("td", undefined, "left");
    name.append(element("code", confText(run.meta.conf)));
    line.append(name, element("td", verdict.survives ? "yes" : `no: ${bytesText(verdict.requested_bytes || 0)} at ${verdict.at.toLocaleString("en")}`, verdict.survives ? "left good" : "left bad"));
    for (const [, of, text] of columns) {
      const values = alive.map((other) => of(other.meta.replay)), value = of(replay);
      const isBest = verdict.survives && alive.length > 1 && Math.min(...values) === value && Math.max(...values) > value;
      line.append(element("td", text(value), isBest ? "best" : ""));
    }
    line.addEventListener("click", () => choose(i));
    body.append(line);
  });
  const headBox = element("thead");
  headBox.append(head);
  $("runs").replaceChildren(headBox, body);
}

function choose(index) {
  const before = page.time;
  page.run = page.runs[index];
  page.map.kept = null;
  const { run } = page, { verdict } = run.meta;
  showVerdict(); showRuns(); jumps();
  $("time").min = run.t0; $("time").max = run.t1;
  const keys = new Map();
  run.places.forEach((place, i) => {
    const key = `${place.pool ? `pool ${place.pool}` : "the default pool"}, stream ${place.stream}`;
    if (!keys.has(key)) keys.set(key, i);
  });
  $("place").replaceChildren(...[...keys].map(([key, i]) => {
    const option = element("option", key);
    option.value = i;
    return option;
  }));
  if (!$("request").value) {
    const failed = page.runs.map((other) => other.meta.verdict.requested_bytes).find((bytes) => bytes);
    let largest = 0;
    for (const bytes of run.requested) largest = Math.max(largest, bytes);
    $("request").value = bytesText(failed || largest || 1048576);
  }
  makeCharts();
  const worst = run.meta.replay.worst.reserved.op + 1;
  setTime(before || (verdict.at ?? worst));
}

function redraw() {
  if (!page.run) return;
  const time = page.time;
  makeCharts();
  setTime(time);
}

async function start() {
  const began = performance.now();
  page.stacks = JSON.parse(new TextDecoder().decode(await inflated("stacks")));
  for (let i = 0; i < META.runs.length; i++) page.runs.push(new Run(META.runs[i], await inflated(`rows${i}`)));
  page.map = new SegmentMap($("map"), $("map-space"), $("map-canvas"));
  mapEvents();
  legend($("legend"), [["requested", "requested"], ["allocated", "allocated"], ["active", "active"], ["reserved", "reserved"], ["below: free in the cache", "reserved-fill"], ["of that, outside the largest free block", "scattered"]]);
  legend($("map-legend"), [["handed out", "allocated"], ["waits for another stream", "pending"], ["free", "free"]]);
  if (META.labels) colourByLabel();
  $("notes").replaceChildren(...META.notes.map((note) => element("li", note)));
  $("notes-section").hidden = META.notes.length === 0;
  $("runs-section").hidden = META.runs.length < 1;
  $("foot").textContent = `fragsim ${META.fragsim}. This page is complete: it loads nothing and sends nothing.`;
  document.title = `${META.file} – fragsim`;
  choose(0);
  $("time").addEventListener("change", () => setTime(Number($("time").value)));
  $("prev").addEventListener("click", () => setTime(page.time - 1));
  $("next").addEventListener("click", () => setTime(page.time + 1));
  $("request").addEventListener("input", showFree);
  $("place").addEventListener("change", showFree);
  $("colour").addEventListener("change", () => { page.map.colour = $("colour").value; page.map.draw(); });
  for (const [id, by] of [["in", 1], ["out", -1]]) {
    $(id).addEventListener("click", () => {
      page.map.zoom = Math.max(-3, Math.min(16, page.map.zoom + by));
      page.map.show(page.state); showScale();
    });
  }
  addEventListener("keydown", (event) => {
    if (/^(INPUT|SELECT)$/.test(event.target.tagName || "")) return;
    if (event.key === "ArrowLeft") setTime(page.time - 1);
    else if (event.key === "ArrowRight") setTime(page.time + 1);
    else return;
    event.preventDefault();
  });
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(redraw, 100); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  page.readyMs = performance.now() - began;
}

addEventListener("error", (event) => page.errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => page.errors.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => page.errors.push(`blocked: ${event.blockedURI}`));
const ready = start().catch((error) => {
  page.errors.push(String(error && error.stack || error));
  $("headline").textContent = "This page cannot be shown";
  $("headline").className = "bad";
  $("because").textContent = typeof DecompressionStream === "undefined"
    ? "The browser is too old: it cannot inflate data (Chrome 80, Firefox 113 and Safari 16.4 can)." : String(error);
});

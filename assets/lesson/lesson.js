// A lesson: text, a slider over the operations, and the segments at each of them.
"use strict";
const $ = (id) => document.getElementById(id);
const META = JSON.parse($("meta").textContent);
const LESSON = META.lesson;
// Of equal lightness, told apart without red and green alone.
const COLOURS = ["#7db3ff", "#ffc45c", "#76d7b3", "#f59ad0", "#c7a8ff", "#ffa07a", "#b8d86b", "#9fd8ef", "#d8b98c", "#c0c7d1"];
let run = 0, done = 0;

function bytesText(n) {
  const [size, unit] = n <= 1024 ? [n, "bytes"] : n <= 2 ** 20 ? [n / 1024, "KiB"] : n <= 2 ** 30 ? [n / 2 ** 20, "MiB"] : [n / 2 ** 30, "GiB"];
  return unit === "bytes" ? `${n} bytes` : `${size.toFixed(2)} ${unit}`;
}

function element(kind, text, name) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

// A paragraph: lines that begin with "- " are a list, what stands in backticks is code.
function withCode(into, text) {
  text.split("`").forEach((piece, i) => into.append(i % 2 ? element("code", piece) : piece));
  return into;
}

function paragraph(into, text) {
  const lines = text.split("\n"), items = lines.filter((line) => line.startsWith("- "));
  const plain = lines.filter((line) => !line.startsWith("- ")).join(" ");
  if (plain) into.append(withCode(element("p"), plain));
  if (!items.length) return;
  const list = element("ul");
  for (const item of items) list.append(withCode(element("li"), item.slice(2)));
  into.append(list);
}

const now = () => LESSON.runs[run];
const levels = (n) => (n ? now().steps[n - 1] : now().before);

function settingsText(run) {
  return `${run.conf || "default settings"}, a device of ${bytesText(run.capacity)}, PyTorch ${run.torch}`;
}

function drawTabs() {
  $("tabs").replaceChildren(...LESSON.runs.map((one, i) => {
    const tab = element("button", one.name);
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-selected", String(i === run));
    tab.addEventListener("click", () => choose(i));
    return tab;
  }));
  $("tabs").hidden = LESSON.runs.length < 2;
  $("settings").textContent = "";
  withCode($("settings"), (now().about ? `${now().about}; ` : "") + settingsText(now()));
}

// The text of the trace, each line with the first operation that it holds.
function drawProgram() {
  const first = new Map(), last = new Map();
  now().steps.forEach((step, i) => {
    if (!first.has(step.line)) first.set(step.line, i + 1);
    last.set(step.line, i + 1);
  });
  const lines = META.traces[now().trace].replace(/\n+$/, "").split("\n");
  $("program").replaceChildren(...lines.map((line, i) => {
    const at = line.indexOf("#"), item = element("li");
    // Comments stand in a column of their own in the file; here there is no room for that.
    item.append(at < 0 ? line || " " : line.slice(0, at).replace(/\s+$/, at ? "  " : ""));
    if (at >= 0) item.append(element("span", line.slice(at), "beside"));
    if (first.has(i + 1)) {
      item.dataset.from = first.get(i + 1);
      item.dataset.to = last.get(i + 1);
      item.addEventListener("click", () => go(last.get(i + 1)));
      item.className = "op";
    } else if (line.trim().startsWith("#") || !line.trim()) item.className = "comment";
    else item.className = "never";
    return item;
  }));
}

function drawLegend(labels) {
  const swatch = (text, style) => {
    const item = element("span"), box = element("i");
    Object.assign(box.style, style);
    item.append(box, text);
    return item;
  };
  const items = labels.slice(0, 10).map((label, i) => swatch(label, { background: COLOURS[i % COLOURS.length] }));
  items.push(swatch("free", { background: "var(--free)" }));
  if (META.rows[run].scenes.some((scene) => scene.some((s) => s.parts.some((p) => p[0] === "pending")))) {
    items.push(swatch("waits for another stream", { background: "var(--pending)" }));
  }
  $("legend").replaceChildren(...items);
}

// The same scale at every moment: the largest segment that is ever there takes the whole width.
function drawSegments() {
  const rows = META.rows[run], scene = rows.scenes[done];
  const before = new Set((rows.scenes[done - 1] || []).map((s) => JSON.stringify(s)));
  $("segments").replaceChildren(...scene.map((segment) => {
    const box = element("div", undefined, before.has(JSON.stringify(segment)) || !done ? "segment" : "segment changed");
    const kind = [segment.small ? "small pool" : "large pool"];
    if (segment.pool) kind.push(`private pool ${segment.pool}`);
    if (segment.stream) kind.push("side stream");
    if (segment.expandable) kind.push("expandable");
    box.append(element("div", `${bytesText(segment.reserved)}, ${kind.join(", ")}`, "head"));
    const strip = element("div", undefined, "strip");
    const largest = rows.largest[segment.small ? 0 : 1];
    strip.style.width = `${(100 * segment.size) / largest}%`;
    for (const [kind, size, name, label] of segment.parts) {
      const part = element("div", name, kind);
      part.style.width = `${(100 * size) / segment.size}%`;
      if (kind === "live") part.style.background = COLOURS[label % COLOURS.length];
      part.title = `${name || kind}: ${bytesText(size)}${kind === "pending" ? ", waits for another stream" : ""}`;
      strip.append(part);
    }
    box.append(strip);
    return box;
  }));
  const [small, large] = [scene.some((s) => s.small), scene.some((s) => !s.small)];
  $("scale").textContent = small && large ? `Small and large segments have scales of their own: full width is ${bytesText(rows.largest[0])} and ${bytesText(rows.largest[1])}.` : "";
}

function drawLevels() {
  const level = levels(done);
  const shown = [
    ["allocated", bytesText(level.allocated)],
    ["reserved", bytesText(level.reserved)],
    ["reserved, not allocated", bytesText(level.reserved - level.allocated)],
    ["free on the device", bytesText(level.device_free)],
    ["segments", level.segments],
    ["cudaMalloc / cudaFree", `${level.cuda_malloc} / ${level.cuda_free}`],
  ];
  if (level.active !== level.allocated) shown.splice(1, 0, ["active", bytesText(level.active)]);
  if (level.map) shown.push(["mapped / unmapped", `${level.map} / ${level.unmap}`]);
  if (level.retries) shown.push(["retries", level.retries]);
  $("levels").replaceChildren(...shown.map(([name, value]) => {
    const box = element("div");
    box.append(element("dt", name), element("dd", value));
    return box;
  }));
}

function go(n) {
  done = Math.max(0, Math.min(now().steps.length, n));
  $("slider").value = done;
  const total = now().steps.length, step = done ? now().steps[done - 1] : null;
  $("count").textContent = `${done} of ${total}${now().ops_total > total ? `, then it is dead (${now().ops_total} in all)` : ""}`;
  $("op").firstElementChild.textContent = step ? step.op : "before the first operation";
  $("did").textContent = step ? `${step.did.join("; ")}.` : "";
  $("note").textContent = step ? [step.chapter, step.note].filter((text) => text).join(" — ") : "";
  document.querySelector(".now").classList.toggle("failed", Boolean(step && step.failed));
  $("message").hidden = !(step && step.failed && now().message);
  $("message").textContent = now().message || "";
  for (const item of $("program").children) {
    const { from, to } = item.dataset;
    if (!from) continue;
    const here = done >= from && done <= to;
    item.className = `op${here ? " here" : done > to ? " done" : ""}${here && step.failed ? " failed" : ""}`;
    if (here) {
      const box = $("program"), top = item.offsetTop - box.offsetTop;
      if (top < box.scrollTop || top > box.scrollTop + box.clientHeight - 30) box.scrollTop = top - box.clientHeight / 2;
    }
  }
  drawLevels();
  drawSegments();
}

function choose(i) {
  // The moment stays: the same program under other settings, or one like it.
  run = i;
  $("slider").max = now().steps.length;
  drawTabs();
  drawProgram();
  drawLegend(META.rows[run].labels);
  go(done);
}

function drawRuns() {
  $("runs-section").hidden = LESSON.runs.length < 2;
  const head = element("tr");
  for (const name of ["", "survives", "peak allocated", "peak reserved", "retries", "cudaMalloc", "mapped"]) {
    head.append(element("th", name, name === "" || name === "survives" ? "left" : ""));
  }
  const table = $("runs"), thead = element("thead"), body = element("tbody");
  thead.append(head);
  LESSON.runs.forEach((one, i) => {
    const end = one.steps[one.steps.length - 1], failed = one.steps.findIndex((step) => step.failed);
    const row = element("tr");
    row.append(element("td", one.name, "left"));
    row.append(element("td", failed < 0 ? "yes" : `no: at operation ${failed + 1}`, failed < 0 ? "left good" : "left bad"));
    for (const value of [bytesText(end.peak_allocated), bytesText(end.peak_reserved), end.retries, end.cuda_malloc, end.map]) {
      row.append(element("td", value));
    }
    row.addEventListener("click", () => choose(i));
    body.append(row);
  });
  table.replaceChildren(thead, body);
}

function drawText() {
  document.title = `${LESSON.title.replaceAll("`", "")} - fragsim lesson`;
  $("what").textContent = `fragsim lesson ${LESSON.name}`;
  $("title").textContent = "";
  withCode($("title"), LESSON.title);
  for (const text of LESSON.text) paragraph($("text"), text);
  if (LESSON.popular) {
    $("popular").hidden = false;
    const { claim, verdict, real, fails } = LESSON.popular, list = $("popular-list");
    for (const [name, text] of [["The claim", claim], ["Verdict", verdict], ["What real runs showed", real], ["When and why it fails", fails]]) {
      list.append(element("dt", name), withCode(element("dd", undefined, name === "The claim" ? "claim" : ""), text));
    }
    if (LESSON.popular.made.length) {
      const runs = element("dd");
      for (const made of LESSON.popular.made) {
        const item = withCode(element("div"), `${bytesText(made.peak_allocated)}; the real run took ${bytesText(made.real_peak_allocated)}: \`${made.command}\``);
        runs.append(item);
      }
      list.append(element("dt", "By formulas, peak allocated"), runs);
    }
  }
  for (const look of LESSON.look) $("look").append(withCode(element("li"), look));
  $("look-section").hidden = !LESSON.look.length;
  for (const claim of LESSON.claims) {
    const item = withCode(element("li", undefined, claim.holds ? "" : "bad"), claim.says);
    item.title = claim.checks.join("\n");
    $("claims").append(item);
  }
  $("claims-section").hidden = !LESSON.claims.length;
  for (const thread of LESSON.threads) {
    const item = element("li"), link = element("a", thread.at);
    link.href = thread.url;
    link.rel = "noreferrer";
    item.append(link, ": ");
    withCode(item, thread.says);
    $("threads").append(item);
  }
  $("threads-section").hidden = !LESSON.threads.length;
  $("foot").textContent = `Every figure is the replay's: fragsim ${LESSON.fragsim}. Nothing here is loaded from elsewhere.`;
}

// What the page is when it looks at itself: for tests, behind #test.
function look() {
  const found = { errors, resources: performance.getEntriesByType("resource").length, runs: [] };
  LESSON.runs.forEach((one, i) => {
    choose(i);
    const moments = [];
    for (let n = 0; n <= one.steps.length; n++) {
      go(n);
      const segments = META.rows[i].scenes[n];
      const sum = (kinds) => segments.reduce((all, s) => all + s.parts.reduce((part, p) => part + (kinds.includes(p[0]) ? p[1] : 0), 0), 0);
      const strips = [...document.querySelectorAll(".strip")];
      moments.push({
        drawn: strips.length, parts: strips.reduce((all, strip) => all + strip.children.length, 0),
        widest: Math.max(0, ...strips.map((strip) => strip.getBoundingClientRect().width)),
        room: $("segments").getBoundingClientRect().width,
        live: sum(["live"]), reserved: segments.reduce((all, s) => all + s.reserved, 0),
        allocated: levels(n).allocated, says: $("did").textContent,
      });
    }
    found.runs.push({ name: one.name, moments });
  });
  choose(0);
  go(0);
  $("next").click();
  const one = done;
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "End" }));
  const end = done;
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
  found.keys = { one, end, back: done };
  $("slider").value = 2;
  $("slider").dispatchEvent(new Event("input"));
  found.slid = done;
  found.claims = [...$("claims").children].map((item) => item.className === "");
  found.title = $("title").textContent;
  $("check").textContent = JSON.stringify(found);
}

const errors = [];
window.addEventListener("error", (event) => errors.push(String(event.message)));
document.addEventListener("securitypolicyviolation", (event) => errors.push(`policy: ${event.violatedDirective}`));
drawText();
drawRuns();
choose(0);
$("slider").addEventListener("input", () => go(Number($("slider").value)));
$("first").addEventListener("click", () => go(0));
$("prev").addEventListener("click", () => go(done - 1));
$("next").addEventListener("click", () => go(done + 1));
$("last").addEventListener("click", () => go(now().steps.length));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === $("slider")) return;
  const to = { ArrowRight: done + 1, ArrowLeft: done - 1, Home: 0, End: now().steps.length }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  go(to);
});
if (location.hash === "#test") look();
else if (/^#\d+$/.test(location.hash)) go(Number(location.hash.slice(1)));

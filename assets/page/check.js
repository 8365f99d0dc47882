// With #test in its address the page looks at itself and writes down what it found, for a test to
// compare with the replay.
"use strict";
if (location.hash === "#test") {
  ready.then(() => {
    const found = { errors: page.errors, ready_ms: page.readyMs, runs: [], moments: [], resources: performance.getEntriesByType("resource").length };
    const press = (target, x, y) => {
      for (const kind of ["mousemove", "mousedown", "mouseup", "click"]) {
        target.dispatchEvent(new MouseEvent(kind, { clientX: x, clientY: y, bubbles: true, view: window }));
      }
    };
    const pixels = () => {
      const canvas = $("map-canvas"), data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let hash = 0;
      for (let i = 0; i < data.length; i += 4) hash = (hash * 31 + data[i] * 65536 + data[i + 1] * 256 + data[i + 2]) >>> 0;
      return hash;
    };
    const moment = () => {
      const { run, time } = page;
      const level = Object.fromEntries(SERIES.map(([name]) => [name, run.level(name, time)]));
      let inBlocks = 0, inSegments = 0;
      for (const row of page.state.rows) inBlocks += run.size[row];
      for (const segment of page.state.segments) inSegments += segment.end - segment.addr;
      return { time, ...level, in_blocks: inBlocks, in_segments: inSegments, ...page.sums, pixels: pixels() };
    };
    for (const run of page.runs) {
      const most = Object.fromEntries(SERIES.map(([name]) => [name, run.levels[name].reduce((a, b) => Math.max(a, b), 0)]));
      found.runs.push({ conf: run.meta.conf, whole: run.isWhole, blocks: run.born.length, most });
    }
    found.first = moment();
    // What is free at the end, for requests of several sizes at every place.
    const { run: last } = page, end = last.state(last.t1);
    found.free = [];
    for (const place of last.places) {
      for (const bytes of [1, 1000, 700000, 1048577, 3000001, 12582912, 23068672, 41943040]) {
        const rows = freeTable(end, bytes, place).map((row) => ({ why: row.why || null, pool: row.place.pool, small: row.place.small, stream: row.place.stream, bytes: row.bytes, blocks: row.blocks, largest: row.largest }));
        found.free.push({ bytes, pool: place.pool, stream: place.stream, rows });
      }
    }
    // A click on the chart, at three places.
    const over = page.charts[0].over, box = over.getBoundingClientRect();
    for (const share of [0.15, 0.5, 0.9]) {
      press(over, box.left + share * box.width, box.top + box.height / 2);
      found.moments.push(moment());
    }
    // The mouse on the widest block in view.
    $("map").scrollTop = 0;
    page.map.draw();
    const block = page.map.widest(), canvas = $("map-canvas").getBoundingClientRect();
    if (block) {
      $("map-canvas").dispatchEvent(new MouseEvent("mousemove", { clientX: canvas.left + block.x, clientY: canvas.top + block.y, bubbles: true }));
      const { run } = page;
      found.block = { size: run.size[block.row], requested: run.requested[block.row], addr: run.addr[block.row], born: run.born[block.row], tip: $("tip").textContent };
      hideTip();
    }
    // A zoom into the middle third.
    const { t0, t1 } = page.run, began = performance.now();
    page.charts[0].setScale("x", { min: t0 + (t1 - t0) / 3, max: t0 + 2 * (t1 - t0) / 3 });
    found.zoom_ms = performance.now() - began;
    requestAnimationFrame(() => {
      const { min, max } = page.charts[1].scales.x;
      found.zoomed = [page.charts[0].scales.x.min, page.charts[0].scales.x.max, min, max];
      found.headline = $("headline").textContent;
      found.free_rows = $("unusable").rows.length - 1;
      found.answer = $("answer").textContent;
      $("check").textContent = JSON.stringify(found);
    });
  }).catch((error) => { $("check").textContent = JSON.stringify({ errors: [...page.errors, String(error.stack || error)] }); });
}

// The segment map: memory to scale, in lines like text. Only what is in view is drawn.
"use strict";
const LINE = 20, GAP = 5, HEAD = 26, MARGIN = 10;

// The colours of the labels that workloads give, as in the pictures.
const LABELS = {
  parameter: "#1f6feb", gradient: "#e09f1f", optimizer_state: "#a4389b", activation: "#1a936f", temporary: "#c64834",
  kv_cache: "#5cbed6", input: "#8c6e46", workspace: "#6e7887",
};

// The colour of a stack or label, by its number.
function stackColour(number) {
  const [texts, , stacks] = page.stacks, known = META.labels && LABELS[texts[stacks[number - 1][0]]];
  return known || `hsl(${(number * 137) % 360} 60% 55%)`;
}

class SegmentMap {
  constructor(box, space, canvas) {
    Object.assign(this, { box, space, canvas, state: null, colour: "state", zoom: 0, kept: null });
    box.addEventListener("scroll", () => this.draw());
  }

  show(state) {
    this.state = state;
    this.arrange();
    this.draw();
  }

  // Where everything lies: groups of one pool, half and stream; in them segments by address.
  arrange() {
    const { run, segments } = this.state;
    const groups = new Map();
    for (const segment of segments) {
      const key = placeText(run.places[segment.place]);
      if (!groups.has(key)) groups.set(key, { key, segments: [], bytes: 0 });
      const group = groups.get(key);
      group.segments.push(segment);
      group.bytes += segment.end - segment.addr;
    }
    this.groups = [...groups.values()].sort((a, b) => b.bytes - a.bytes);
    const total = this.groups.reduce((sum, group) => sum + group.bytes, 0);
    this.width = Math.max(200, this.box.clientWidth - 2 * MARGIN);
    const lines = Math.max(1, 14 - this.groups.length);
    this.perPixel = Math.max(64, (total / (this.width * lines)) * 2 ** -this.zoom);
    this.lines = [];
    let y = MARGIN;
    for (const group of this.groups) {
      this.lines.push({ y, height: HEAD, group });
      y += HEAD;
      let line = null, x = 0;
      const newLine = () => {
        line = { y, height: LINE, pieces: [] };
        this.lines.push(line);
        y += LINE + GAP;
        x = 0;
      };
      newLine();
      let before = null;
      for (const segment of group.segments) {
        // Between ranges of an expandable segment nothing is mapped; not to scale.
        const isBroken = before && run.places[segment.place].expandable;
        if (x > 0 && x + 12 > this.width) newLine();
        if (isBroken && x > 0) line.pieces.push({ x, width: 10, unmapped: segment.addr - before.end });
        if (x > 0) x += isBroken ? 13 : 3;
        let from = segment.addr;
        while (from < segment.end) {
          if (x >= this.width - 1) newLine();
          const room = (this.width - x) * this.perPixel;
          const to = Math.min(segment.end, from + room);
          const width = Math.max(1, (to - from) / this.perPixel);
          line.pieces.push({ x, width, segment, from, to });
          x += width;
          from = to;
        }
        before = segment;
      }
      y += GAP;
    }
    this.height = y + MARGIN;
    this.space.style.height = `${Math.max(this.height, 60)}px`;
  }

  colours() {
    const style = getComputedStyle(document.documentElement);
    const names = ["back", "text", "quiet", "free", "edge", "allocated", "pending", "bad"];
    return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }

  draw() {
    if (!this.state) return;
    const ratio = window.devicePixelRatio || 1, top = this.box.scrollTop;
    const [width, height] = [this.box.clientWidth, this.box.clientHeight];
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d"), colours = this.colours();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = colours.back;
    context.fillRect(0, 0, width, height);
    context.font = '13px system-ui, "DejaVu Sans", sans-serif';
    context.textBaseline = "middle";
    this.drawn = 0;
    for (const line of this.lines) {
      const y = line.y - top;
      if (y + line.height < 0 || y > height) continue;
      if (line.group) {
        const { key, bytes, segments } = line.group;
        context.fillStyle = colours.quiet;
        context.fillText(`${key}: ${bytesText(bytes)} in ${segments.length} ${segments.length === 1 ? "segment" : "segments"}`, MARGIN, y + HEAD / 2);
        continue;
      }
      for (const piece of line.pieces) this.piece(context, colours, piece, y);
    }
  }

  piece(context, colours, piece, y) {
    const left = MARGIN + piece.x;
    if (piece.unmapped !== undefined) {
      context.fillStyle = colours.edge;
      for (const dx of [2, 5, 8]) context.fillRect(left + dx - 1, y + LINE / 2 - 1, 2, 2);
      return;
    }
    context.fillStyle = colours.free;
    context.fillRect(left, y, piece.width, LINE);
    const { run, rows } = this.state;
    let k = this.firstRow(piece.segment, piece.from), pixel = -1, share = 0;
    // Blocks narrower than a pixel: how full each pixel is, from below. None vanishes.
    const flush = () => {
      if (pixel < 0) return;
      const full = Math.max(1, LINE * Math.min(1, share));
      context.fillStyle = colours.allocated;
      context.fillRect(left + pixel, y + LINE - full, 1, full);
      pixel = -1; share = 0;
    };
    for (; k < piece.segment.to && run.addr[rows[k]] < piece.to; k++) {
      const row = rows[k];
      const x0 = Math.max(0, (run.addr[row] - piece.from) / this.perPixel);
      const x1 = Math.min(piece.width, (run.addr[row] + run.size[row] - piece.from) / this.perPixel);
      this.drawn++;
      if (x1 - x0 < 1.5) {
        const at = Math.floor(x0);
        if (at !== pixel) { flush(); pixel = at; }
        share += x1 - x0;
        continue;
      }
      flush();
      const a = Math.round(x0), b = Math.max(a + 1, Math.round(x1));
      context.fillStyle = this.colourOf(row, colours);
      context.fillRect(left + a, y, b - a > 3 ? b - a - 1 : b - a, LINE);
      if (row === this.kept) {
        context.strokeStyle = colours.text; context.lineWidth = 2;
        context.strokeRect(left + a + 1, y + 1, Math.max(1, b - a - 3), LINE - 2);
      }
    }
    flush();
    context.strokeStyle = colours.edge; context.lineWidth = 1;
    context.strokeRect(left + 0.5, y + 0.5, Math.max(1, piece.width - 1), LINE - 1);
  }

  colourOf(row, colours) {
    const { run, time } = this.state;
    if (run.freed[row] <= time) return colours.pending;
    if (this.colour === "age") {
      const age = Math.log2(1 + time - run.born[row]) / Math.log2(2 + time);
      return `hsl(${Math.round(210 - 210 * age)} 70% 55%)`;
    }
    if (this.colour === "stack" && run.stack[row]) return stackColour(run.stack[row]);
    return colours.allocated;
  }

  // The first row that ends behind an address.
  firstRow(segment, addr) {
    const { run, rows } = this.state;
    let low = segment.from, high = segment.to;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (run.addr[rows[middle]] + run.size[rows[middle]] <= addr) low = middle + 1; else high = middle;
    }
    return low;
  }

  // What lies at a point of the canvas: {row}, {gap}, {unmapped} or null.
  at(x, y) {
    if (!this.state) return null;
    y += this.box.scrollTop; x -= MARGIN;
    const line = this.lines.find((line) => line.pieces && line.y <= y && y < line.y + LINE);
    const piece = line && line.pieces.find((piece) => piece.x <= x && x < piece.x + piece.width);
    if (!piece) return null;
    if (piece.unmapped !== undefined) return { unmapped: piece.unmapped };
    const { run, rows } = this.state, addr = piece.from + (x - piece.x) * this.perPixel;
    const k = this.firstRow(piece.segment, addr);
    const row = k < piece.segment.to ? rows[k] : -1;
    if (row >= 0 && run.addr[row] <= addr) return { row, segment: piece.segment };
    const start = k > piece.segment.from ? run.addr[rows[k - 1]] + run.size[rows[k - 1]] : piece.segment.addr;
    const end = row >= 0 ? run.addr[row] : piece.segment.end;
    return { gap: { addr: start, size: end - start }, segment: piece.segment };
  }

  // The middle of the widest block in view, in the canvas: for tests and for nobody else.
  widest() {
    let best = null;
    for (const line of this.lines) {
      for (const piece of line.pieces || []) {
        if (!piece.segment || line.y + LINE > this.box.clientHeight) continue;
        for (let k = this.firstRow(piece.segment, piece.from); k < piece.segment.to; k++) {
          const row = this.state.rows[k], { addr, size } = this.state.run;
          if (addr[row] >= piece.to) break;
          const x0 = Math.max(addr[row], piece.from), x1 = Math.min(addr[row] + size[row], piece.to);
          const width = (x1 - x0) / this.perPixel;
          if (!best || width > best.width) {
            best = { row, width, x: MARGIN + piece.x + ((x0 + x1) / 2 - piece.from) / this.perPixel, y: line.y + LINE / 2 };
          }
        }
      }
    }
    return best;
  }
}

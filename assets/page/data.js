// The rows of a replay, unpacked, and what follows from them at any moment.
"use strict";
const NEVER = 0xffffffff;
const $ = (id) => document.getElementById(id);
const META = JSON.parse($("meta").textContent);

async function inflated(id) {
  const element = $(id);
  const letters = atob(element.textContent);
  element.textContent = "";
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Columns of numbers, seven bits a byte, the lowest first.
class Reader {
  constructor(bytes) { this.bytes = bytes; this.at = 0; }
  number() {
    const bytes = this.bytes;
    let byte = bytes[this.at++];
    if (byte < 0x80) return byte;
    let value = byte & 0x7f, factor = 128;
    do {
      byte = bytes[this.at++];
      value += (byte & 0x7f) * factor;
      factor *= 128;
    } while (byte >= 0x80);
    return value;
  }
  into(column) {
    for (let i = 0; i < column.length; i++) column[i] = this.number();
    return column;
  }
  differences(column, unit = 1) {
    let last = 0;
    for (let i = 0; i < column.length; i++) {
      last += unfolded(this.number());
      column[i] = last * unit;
    }
    return column;
  }
}

const unfolded = (n) => (n % 2 ? -(n + 1) / 2 : n / 2);

// Times of death, from counts since `from` (0 for never).
function ends(from, counts) {
  for (let i = 0; i < counts.length; i++) counts[i] = counts[i] ? from[i] + counts[i] - 1 : NEVER;
  return counts;
}

class Run {
  constructor(meta, bytes) {
    const { blocks: n, segments: m, stretches: s, unit } = meta.shape;
    const reader = new Reader(bytes);
    this.meta = meta;
    this.places = meta.shape.places;
    this.capacity = meta.replay.capacity;
    [this.t0, this.t1] = meta.window;
    this.born = reader.differences(new Uint32Array(n));
    this.freed = ends(this.born, reader.into(new Uint32Array(n)));
    this.died = ends(this.freed, reader.into(new Uint32Array(n)));
    this.addr = reader.differences(new Float64Array(n), unit);
    this.size = scaled(reader.into(new Float64Array(n)), unit);
    this.requested = reader.into(new Float64Array(n));
    for (let i = 0; i < n; i++) this.requested[i] = this.size[i] - unfolded(this.requested[i]);
    this.place = reader.into(new Uint16Array(n));
    this.stack = reader.differences(new Uint32Array(n));
    this.segBorn = reader.differences(new Uint32Array(m));
    this.segDied = ends(this.segBorn, reader.into(new Uint32Array(m)));
    this.segAddr = reader.differences(new Float64Array(m), unit);
    this.segSize = scaled(reader.into(new Float64Array(m)), unit);
    this.segPlace = reader.into(new Uint16Array(m));
    this.stretchTime = reader.differences(new Float64Array(s));
    for (let i = 0; i < s; i++) this.stretchTime[i] += 1;
    this.freeMin = reader.differences(new Float64Array(s));
    this.freeMax = reader.differences(new Float64Array(s));
    this.scatteredMin = reader.differences(new Float64Array(s));
    this.scatteredMax = reader.differences(new Float64Array(s));
    this.isWhole = reader.at === bytes.length;
    this.levels = this.sums();
  }

  // Each level after each operation, from t0 to t1.
  sums() {
    const n = this.t1 - this.t0 + 1, t0 = this.t0, t1 = this.t1;
    const names = ["requested", "allocated", "active", "reserved"];
    const levels = Object.fromEntries(names.map((name) => [name, new Float64Array(n)]));
    const add = (column, from, to, bytes) => {
      if (from > t1 || to <= t0) return;
      column[Math.max(from, t0) - t0] += bytes;
      if (to <= t1) column[to - t0] -= bytes;
    };
    for (let i = 0; i < this.born.length; i++) {
      add(levels.requested, this.born[i], this.died[i], this.requested[i]);
      add(levels.allocated, this.born[i], this.freed[i], this.size[i]);
      add(levels.active, this.born[i], this.died[i], this.size[i]);
    }
    for (let i = 0; i < this.segBorn.length; i++) {
      add(levels.reserved, this.segBorn[i], this.segDied[i], this.segSize[i]);
    }
    for (const name of names) {
      const column = levels[name];
      for (let i = 1; i < n; i++) column[i] += column[i - 1];
    }
    return levels;
  }

  // Everything that is there after `time` operations.
  state(time) {
    const rows = [];
    for (let i = 0; i < this.born.length && this.born[i] <= time; i++) {
      if (this.died[i] > time) rows.push(i);
    }
    rows.sort((a, b) => this.addr[a] - this.addr[b]);
    let ranges = [];
    for (let i = 0; i < this.segBorn.length; i++) {
      if (this.segBorn[i] <= time && this.segDied[i] > time) ranges.push(i);
    }
    ranges.sort((a, b) => this.segAddr[a] - this.segAddr[b]);
    // Ranges of an expandable segment that touch are one piece of memory.
    const segments = [];
    for (const i of ranges) {
      const last = segments[segments.length - 1], addr = this.segAddr[i], place = this.segPlace[i];
      const isExpandable = this.places[place].expandable;
      if (last && isExpandable && last.place === place && last.end === addr) {
        last.end += this.segSize[i];
        continue;
      }
      segments.push({ addr, end: addr + this.segSize[i], place, from: 0, to: 0 });
    }
    let at = 0;
    for (const segment of segments) {
      while (at < rows.length && this.addr[rows[at]] < segment.addr) at++;
      segment.from = at;
      while (at < rows.length && this.addr[rows[at]] < segment.end) at++;
      segment.to = at;
    }
    const state = { run: this, time, rows, segments, gaps: [], pending: 0, pendingBlocks: 0 };
    for (const segment of segments) {
      let next = segment.addr;
      for (let k = segment.from; k < segment.to; k++) {
        const row = rows[k];
        if (this.addr[row] > next) state.gaps.push({ addr: next, size: this.addr[row] - next, segment });
        next = this.addr[row] + this.size[row];
      }
      if (segment.end > next) state.gaps.push({ addr: next, size: segment.end - next, segment });
    }
    for (const row of rows) {
      if (this.freed[row] <= time) { state.pending += this.size[row]; state.pendingBlocks++; }
    }
    return state;
  }

  level(name, time) { return this.levels[name][Math.min(Math.max(time, this.t0), this.t1) - this.t0]; }
}

function scaled(column, unit) {
  for (let i = 0; i < column.length; i++) column[i] *= unit;
  return column;
}

// As PyTorch prints sizes.
function bytesText(n) {
  if (n <= 1024) return `${n} bytes`;
  if (n <= 1048576) return `${(n / 1024).toFixed(2)} KiB`;
  if (n <= 1073741824) return `${(n / 1048576).toFixed(2)} MiB`;
  return `${(n / 1073741824).toFixed(2)} GiB`;
}

function parseBytes(text) {
  const match = /^\s*([0-9]*\.?[0-9]+)\s*(b|bytes?|k|kb|kib|m|mb|mib|g|gb|gib)?\s*$/i.exec(text);
  if (!match) return null;
  const shift = { k: 1024, m: 1048576, g: 1073741824 }[(match[2] || "b")[0].toLowerCase()] || 1;
  return Math.floor(Number(match[1]) * shift);
}

const placeText = (place) =>
  `${place.pool ? `pool ${place.pool}` : "default pool"}, ${place.small ? "small" : "large"}, stream ${place.stream}`;

// The block size for a request, as the settings round it.
function roundedSize(bytes, { divisions, least_division: least }) {
  if (bytes < 512) return 512;
  let floor = 512, log = 9;
  while (floor * 2 <= bytes) { floor *= 2; log++; }
  const count = divisions[Math.min(15, Math.max(0, log - 20))];
  if (count < least || bytes <= 512 * count) return Math.ceil(bytes / 512) * 512;
  if (floor === bytes || count <= 1) return bytes;
  const step = Math.floor(floor / 2 ** Math.floor(Math.log2(count)));
  return step ? Math.ceil(bytes / step) * step : floor * 2;
}

// The segment that is made for a block, where segments are not expandable.
function segmentSize(size, { large_segment: large }) {
  if (size <= 1048576) return 2097152;
  return size < 10485760 ? large : Math.ceil(size / 2097152) * 2097152;
}

// Why a free block does not serve a request, in the order in which it is looked for.
const WHY = {
  private_pool: "of a private pool", other_pool: "not of this private pool",
  other_half: "", other_stream: "of another stream", pending: "freed, but waits for another stream",
  too_small: "too small", expandable: "expandable memory, which is off",
  oversize: "not to be split (max_split_size)", too_much_left: "would waste too much (max_split_size)",
};

function whyText(row) {
  if (row.why !== "other_half") return WHY[row.why] || "";
  return row.place.small ? "only for requests of at most 1 MiB" : "only for requests of more than 1 MiB";
}

// What is free, by place and by why it would not serve a request of this size at a place like `wanted`.
function freeTable(state, bytes, wanted) {
  const { rules } = state.run.meta, size = roundedSize(bytes, rules);
  const { max_split_size: split, max_non_split_rounding: slack } = rules;
  const small = size <= 1048576;
  const elsewhere = (place) => {
    if (place.pool !== wanted.pool) return wanted.pool ? "other_pool" : "private_pool";
    if (place.small !== small) return "other_half";
    return place.stream === wanted.stream ? "" : "other_stream";
  };
  const unfit = (gap, place) => {
    if (gap < size) return "too_small";
    if (place.expandable && !rules.expandable) return "expandable";
    if (split !== null && size < split && gap >= split) return "oversize";
    if (split !== null && slack !== null && size >= split && gap >= size + slack) return "too_much_left";
    return "";
  };
  const rows = new Map();
  const add = (why, place, gap) => {
    const key = `${why}|${placeText(place)}`;
    const row = rows.get(key) || { place, why, bytes: 0, blocks: 0, largest: 0 };
    row.bytes += gap; row.blocks++; row.largest = Math.max(row.largest, gap);
    rows.set(key, row);
  };
  for (const gap of state.gaps) {
    const place = state.run.places[gap.segment.place];
    add(elsewhere(place) || unfit(gap.size, place), place, gap.size);
  }
  for (const row of state.rows) {
    if (state.run.freed[row] > state.time) continue;
    const place = state.run.places[state.run.place[row]];
    add(elsewhere(place) || "pending", place, state.run.size[row]);
  }
  return [...rows.values()].sort((a, b) => (a.why === "" ? -1 : b.why === "" ? 1 : b.bytes - a.bytes));
}

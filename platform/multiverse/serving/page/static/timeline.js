// The time line: which branch ran when and where. One row per lane, and one for the same tokens one after the other.
//
//   answer      ====<>- - - - - - - -()=====
//   1 replica 1     |==========......|          <> fork   () join   ... ended, waits for the others
//   2 replica 2     |================|
//   sequential  ====|=====1====|=======2=======|=====

import { duration, svg } from "./dom.js";
import { replicaName } from "./replicas.js";

const ROW = 30;
const BAR = 12;
const TOP = 12;
const CORNER = 7;
const WIDE = 560;

export function drawTimeline(root, run) {
  const width = Math.max(280, root.clientWidth);
  const gain = estimate(run);
  const chart = new Chart(width, run, gain);
  root.replaceChildren(chart.draw());
}

/** What the same tokens would have taken in sequence: {total, before, parts: [{lane, milliseconds}]}, or null. */
export function estimate(run) {
  const speedup = run.result?.speedup;
  if (!speedup || run.mode === "off" || run.blocks.size === 0) return null;
  const before = Math.max(0, run.result.milliseconds - speedup.milliseconds);
  const parts = [...shares(run.top, run.result.tokens)];
  const tokens = parts.reduce((sum, part) => sum + part.tokens, 0);
  const each = speedup.sequential_milliseconds / tokens;
  return {
    before,
    total: before + speedup.sequential_milliseconds,
    parts: parts.map(({ lane, tokens }) => ({ lane, milliseconds: tokens * each })),
  };
}

/** A lane's tokens in reading order, its branches' among them. Its own are shared out by the time its text took. */
function* shares(lane, tokens) {
  const blocks = lane.items.filter((item) => item.branches);
  const inside = blocks.flatMap((block) => block.branches).reduce((sum, branch) => sum + (branch.tokens ?? 0), 0);
  const stretches = ownStretches(lane, lane.ended);
  const time = stretches.reduce((sum, [from, to]) => sum + to - from, 0) || 1;
  for (const [index, [from, to]] of stretches.entries()) {
    yield { lane, tokens: (Math.max(0, tokens - inside) * (to - from)) / time };
    for (const branch of blocks[index]?.branches ?? []) yield* shares(branch, branch.tokens ?? 0);
  }
}

/** When a lane's own text grew: around its blocks. */
function ownStretches(lane, now) {
  const stretches = [];
  let from = lane.first ?? lane.ended ?? now;
  for (const block of lane.items.filter((item) => item.branches)) {
    stretches.push([Math.min(from, block.forked), block.forked]);
    from = block.joined ?? null;
    if (from === null) return stretches;
  }
  stretches.push([from, Math.max(from, lane.ended ?? now)]);
  return stretches;
}

class Chart {
  constructor(width, run, gain) {
    this._run = run;
    this._gain = gain;
    this._wide = width >= WIDE;
    this._width = width;
    this._left = this._wide ? 104 : 58;
    this._now = run.now;
    const last = Math.max(this._now, gain?.total ?? 0);
    this._end = run.running ? roundedUp(last * 1.05) : last;
    this._rows = new Map([...run.lanes()].map((lane, row) => [lane, row]));
    this._back = svg("g", { class: "lines" });
    this._front = svg("g", { class: "bars" });
  }

  draw() {
    const rows = this._rows.size + (this._gain ? 1.4 : 0);
    const bottom = TOP + rows * ROW;
    const axis = this._axis(bottom);
    this._lane(this._run.top);
    if (this._gain) this._sequential(TOP + (this._rows.size + 0.9) * ROW);
    const label = { role: "img", "aria-label": this._summary() };
    const size = { width: this._width, height: bottom + 24, viewBox: `0 0 ${this._width} ${bottom + 24}` };
    return svg("svg", { ...label, ...size }, axis, this._back, this._front);
  }

  _x(milliseconds) {
    return this._left + (milliseconds / this._end) * (this._width - this._left - 14);
  }

  _y(lane) {
    return TOP + (this._rows.get(lane) + 0.5) * ROW;
  }

  _lane(lane) {
    const y = this._y(lane);
    const top = lane === this._run.top;
    const hue = lane.hue;
    this._label(y, top ? "answer" : lane.label, lane.replica, hue);
    const first = lane.first ?? lane.ended ?? this._now;
    if (first > lane.forked) this._bar(lane.forked, first, y, `${hue} before`, top ? "the prompt is read" : "starts");
    const name = top ? "answer" : `branch ${lane.label}: ${lane.outline}`;
    for (const [from, to] of ownStretches(lane, this._now)) {
      this._bar(from, to, y, hue, `${name}, ${duration(from)} to ${duration(to)}`);
    }
    for (const item of lane.items) if (item.branches) this._block(item, y);
  }

  _block(block, y) {
    const fork = this._x(block.forked);
    const join = block.joined === null ? null : this._x(block.joined);
    this._line(`M${fork} ${y}H${join ?? this._x(this._now)}`, "waits");
    for (const branch of block.branches) {
      const its = this._y(branch);
      this._line(`M${fork} ${y}V${its - CORNER}q0 ${CORNER} ${CORNER} ${CORNER}`, "edge");
      if (branch.ended !== null) this._line(`M${this._x(branch.ended)} ${its}H${(join ?? this._x(this._now)) - (join ? CORNER : 0)}`, "waits");
      if (join !== null) this._line(`M${join - CORNER} ${its}q${CORNER} 0 ${CORNER} ${-CORNER}V${y}`, "edge");
      this._lane(branch);
    }
    const forked = svg("title", {}, `fork of block ${block.id} at ${duration(block.forked)}`);
    this._front.append(svg("path", { class: "fork", d: `M${fork - 6} ${y}l6 -6l6 6l-6 6z` }, forked));
    if (join === null) return;
    const joined = svg("title", {}, `join of block ${block.id} at ${duration(block.joined)}`);
    this._front.append(svg("circle", { class: "join", cx: join, cy: y, r: 5.5 }, joined));
  }

  _sequential(y) {
    const { before, parts, total } = this._gain;
    this._label(y, this._wide ? "in sequence" : "seq.", "", "");
    if (before > 0) this._bar(0, before, y, "main before", "until the first token");
    let from = before;
    for (const { lane, milliseconds } of parts) {
      const top = lane === this._run.top;
      const name = top ? "answer" : `branch ${lane.label}: ${lane.outline}`;
      this._bar(from, from + milliseconds, y, lane.hue, `${name}, ${duration(milliseconds)}`);
      from += milliseconds;
    }
    const saved = total - this._run.result.milliseconds;
    const end = this._x(this._run.result.milliseconds);
    this._line(`M${end} ${TOP + ROW / 2}V${y + BAR}`, "end");
    if (saved > 0 && this._x(total) - end > 76) {
      const line = TOP + ROW / 2;
      this._line(`M${end + 6} ${line}H${this._x(total)}`, "saved");
      const middle = (end + this._x(total)) / 2 + 3;
      const text = `${duration(saved)} saved`;
      this._front.append(svg("text", { x: middle, y: line - 6, class: "saved-text", "text-anchor": "middle" }, text));
    }
  }

  _bar(from, to, y, hue, title) {
    const x = this._x(from);
    const width = Math.max(1, this._x(to) - x);
    const shape = { x, y: y - BAR / 2, width, height: BAR, rx: Math.min(3, width / 2), class: `bar ${hue}` };
    this._front.append(svg("rect", shape, svg("title", {}, title)));
  }

  _line(d, kind) {
    this._back.append(svg("path", { d, class: kind }));
  }

  _label(y, label, replica, hue) {
    const name = replicaName(replica);
    const where = name && (this._wide ? ` replica ${name}` : ` r${name}`);
    const text = svg("text", { x: this._left - 10, y: y + 4, "text-anchor": "end" }, svg("tspan", { class: `lane ${hue}` }, label));
    if (where) text.append(svg("tspan", {}, where));
    this._front.append(text);
  }

  _axis(bottom) {
    const step = tick(this._end, this._wide ? 8 : 4);
    const axis = svg("g", { class: "axis" });
    for (let at = 0; at <= this._end; at += step) {
      const x = this._x(at);
      const digits = step < 1000 ? 1 : 0;
      axis.append(
        svg("path", { d: `M${x} ${TOP}V${bottom}` }),
        svg("text", { x, y: bottom + 16, "text-anchor": "middle" }, `${(at / 1000).toFixed(digits)} s`),
      );
    }
    return axis;
  }

  _summary() {
    const blocks = [...this._run.blocks.values()];
    const told = blocks.map((block) => {
      const end = block.joined === null ? "still running" : `joined at ${duration(block.joined)}`;
      return `block ${block.id} with ${block.branches.length} branches forked at ${duration(block.forked)}, ${end}`;
    });
    const sequential = this._gain ? `; one after the other it would have taken ${duration(this._gain.total)}` : "";
    return `Time line of ${duration(this._now)}: ${told.join("; ") || "no block"}${sequential}.`;
  }
}

/** A time not below `milliseconds` that moves on in jumps only, so that a growing chart is still most of the time. */
function roundedUp(milliseconds) {
  let end = 1000;
  while (end < milliseconds) end *= 1.5;
  return end;
}

/** Round steps, at most so many of them. */
function tick(end, most) {
  const steps = [100, 200, 500, 1000, 2000, 5000, 10000, 20000, 60000, 120000, 300000, 600000];
  return steps.find((step) => end / step <= most) ?? end;
}

// The page: form, key, one request at a time, and what is shown of it.

import { AnswerView } from "./answer.js";
import { ApiFailure, ask, servedModel } from "./api.js";
import { curlCommand, requestBody } from "./curl.js";
import { byId, duration, element } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { History, showFigures, showTimes } from "./figures.js";
import { Run } from "./run.js";
import { drawTimeline, estimate } from "./timeline.js";

const KEY = "multiverse-key";
const FRAME = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 80;

let key = sessionStorage.getItem(KEY) ?? "";
let model = null;
let run = null;
let asking = null;
const answer = new AnswerView(byId("answer"));
const history = new History(byId("history"));

/** Ask for the model with a key, which is kept once it was accepted. Gives whether the model is known now. */
async function connect(tried = key, signal = null) {
  showError(null);
  try {
    model = await servedModel(tried, signal);
  } catch (failure) {
    if (signal?.aborted) say("Cancelled.");
    else refused(failure, tried);
    return false;
  }
  keep(tried);
  byId("model").textContent = model.id;
  byId("health").className = "dot up";
  byId("max-tokens").max = model.max_model_len;
  if (model.default_mode === "off") selectMode("force");
  leaveKeyForm();
  showCurl();
  return true;
}

function refused(failure, tried) {
  byId("health").className = "dot down";
  byId("forget").hidden = !key;
  say("");
  if (failure.status !== 401) return showError(failure);
  askForKey();
  if (tried) showError(failure, byId("key-form"));
}

function keep(accepted) {
  key = accepted;
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
  byId("forget").hidden = !key;
}

function askForKey() {
  keep("");
  byId("model").textContent = "needs an API key";
  byId("key-form").hidden = false;
  byId("key").value = "";
  byId("key").focus();
  showCurl();
}

function takeKey() {
  const given = byId("key").value.trim();
  // No header could carry another one.
  if (/^[!-~]+$/.test(given)) return connect(given);
  const detail = "A key has letters from A to Z, digits and signs, and no spaces inside. Copy it again, alone.";
  showError(new ApiFailure("This is no API key", detail), byId("key-form"));
  byId("key").select();
}

/** A hidden field would drop the focus: whoever was in the form goes on at the prompt. */
function leaveKeyForm() {
  const form = byId("key-form");
  if (form.hidden) return;
  const focused = form.contains(document.activeElement);
  form.hidden = true;
  say(`Connected to ${model.id}.`);
  if (focused) byId("prompt").focus();
}

async function generate() {
  if (asking || !byId("ask").reportValidity()) return;
  const controller = new AbortController();
  asking = controller;
  busy(true);
  try {
    if (!model) say("Connecting …");
    if (model || (await connect(key, controller.signal))) await stream(controller.signal);
  } finally {
    asking = null;
    busy(false);
  }
}

async function stream(signal) {
  const prompt = byId("prompt").value.trim();
  const body = requestBody(formValues());
  const mine = begin(body.parallel.mode);
  try {
    await ask(body, key, signal, (chunk) => mine.push(chunk));
    finished(mine, prompt);
  } catch (failure) {
    interrupted(mine, failure, signal);
  } finally {
    draw();
  }
}

function begin(mode) {
  showError(null);
  answer.clear();
  const mine = new Run(mode, (lane, item) => {
    answer.change(mine, lane, item);
    if (item?.branches) {
      announceBlock(item);
      showTimes(byId("time-table"), mine);
    }
  });
  run = mine;
  for (const id of ["answer-card", "time-card"]) byId(id).hidden = false;
  byId("figures-card").hidden = true;
  byId("time-hint").textContent = "";
  say("Generating …");
  showTimes(byId("time-table"), mine);
  // On a phone the form fills the window.
  if (byId("answer-card").getBoundingClientRect().top > innerHeight * 0.75) byId("status").scrollIntoView();
  frame(mine);
  return mine;
}

function announceBlock(block) {
  const width = block.branches.length;
  if (block.joined === null) say(`Block ${block.id} forked into ${width} branches.`);
  else say(`Block ${block.id} joined after ${duration(block.joined - block.forked)}.`);
}

function finished(mine, prompt) {
  mine.stop();
  const { tokens, milliseconds, x } = mine.result;
  say(`Finished: ${tokens} tokens in ${duration(milliseconds)}, parallelism ${x.toFixed(2)}.`);
  showFigures(byId("figures"), mine);
  byId("figures-card").hidden = false;
  byId("history-part").hidden = history.add(mine, prompt) < 2;
}

function interrupted(mine, failure, signal) {
  mine.stop();
  if (signal.aborted) return say("Cancelled. What had come is shown.");
  say("");
  if (!(failure instanceof ApiFailure)) console.error(failure);
  if (failure.status !== 401) return showError(failure);
  askForKey();
  showError(failure, byId("key-form"));
}

/** Draw while `mine` runs. */
function frame(mine) {
  if (run !== mine || !mine.running) return;
  draw();
  setTimeout(() => requestAnimationFrame(() => frame(mine)), FRAME);
}

function draw() {
  if (!run) return;
  drawTimeline(byId("timeline"), run);
  if (!run.running) showTimes(byId("time-table"), run);
  byId("time-hint").textContent = run.running ? `${(run.now / 1000).toFixed(1)} s` : lesson();
}

function lesson() {
  const gain = estimate(run);
  if (run.result === null) return "Cut off before its end.";
  if (run.blocks.size === 0) return "One token after the other: no block was opened.";
  if (!gain) return "What the same tokens would have taken one after the other is not known yet: too few steps were measured.";
  const times = `${duration(run.result.milliseconds)} in parallel, ${duration(gain.total)} in sequence`;
  return `${times}: what the same tokens would have taken one after the other, at the step times this server measured.`;
}

/** The buttons are not `disabled`: that would drop the focus of whoever pressed one. */
function busy(on) {
  byId("go").setAttribute("aria-disabled", on);
  byId("cancel").setAttribute("aria-disabled", !on);
  byId("answer").setAttribute("aria-busy", on);
}

function formValues() {
  return {
    model: model?.id ?? "MODEL",
    prompt: byId("prompt").value.trim(),
    mode: document.querySelector("input[name=mode]:checked").value,
    width: Number(byId("width").value),
    depth: Number(byId("depth").value),
    maxTokens: Number(byId("max-tokens").value),
    temperature: Number(byId("temperature").value),
  };
}

function selectMode(mode) {
  document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
}

function showCurl() {
  byId("curl").textContent = curlCommand(requestBody(formValues()), Boolean(key) || !byId("key-form").hidden);
}

/** before: what the failure is about, in the order of the page. */
function showError(failure, before = byId("status")) {
  const node = byId("error");
  before.after(node);
  node.hidden = failure === null;
  const title = failure?.title ?? "Something went wrong on this page";
  node.replaceChildren(...(failure ? [element("strong", {}, title), element("span", {}, failure.message)] : []));
}

function say(text) {
  byId("status").textContent = text;
}

async function copy() {
  try {
    await navigator.clipboard.writeText(byId("curl").textContent);
    say("The command was copied.");
  } catch {
    getSelection().selectAllChildren(byId("curl"));
    say("The browser does not let the page copy: the command is selected, copy it by hand.");
  }
}

function setUp() {
  const choices = EXAMPLES.map(({ label, prompt }) => {
    const button = element("button", { type: "button", class: "chip", title: prompt }, label);
    button.addEventListener("click", () => {
      byId("prompt").value = prompt;
      showCurl();
      byId("prompt").focus();
    });
    return button;
  });
  byId("examples").append(...choices);
  byId("prompt").value = EXAMPLES[0].prompt;
  byId("width").append(...[2, 3, 4, 5, 6, 7, 8].map((width) => element("option", {}, `${width}`)));
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
  });
  byId("ask").addEventListener("input", showCurl);
  // A field that is refused has to be seen.
  byId("ask").addEventListener("invalid", ({ target }) => target.closest("details")?.setAttribute("open", ""), true);
  byId("cancel").addEventListener("click", () => asking?.abort());
  byId("copy").addEventListener("click", copy);
  byId("forget").addEventListener("click", () => {
    asking?.abort();
    askForKey();
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    takeKey();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target === byId("prompt")) generate();
    if (event.key === "Escape") asking?.abort();
  });
  new ResizeObserver(() => run && !run.running && draw()).observe(byId("timeline"));
  showCurl();
  connect();
}

setUp();

"use strict";
// Everything that is shown goes through textContent: no text of a user or a label becomes HTML.

const $ = (id) => document.getElementById(id);
const classifiers = new Map();

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function ask(path, body) {
  const headers = {};
  if ($("token").value) headers.Authorization = `Bearer ${$("token").value}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const options = { method: body === undefined ? "GET" : "POST", headers };
  if (body !== undefined) options.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Check that it is running.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) {
    $("token-row").hidden = false;
    $("token").focus();
  }
  if (!response.ok) throw new Error(answer.error || `The server answered ${response.status}.`);
  return answer;
}

function say(error) {
  $("message").textContent = error ? error.message : "";
  $("message").hidden = !error;
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)}%`;
}

async function list() {
  const chosen = $("classifier").value;
  const answer = await ask("v1/classifiers");
  classifiers.clear();
  $("classifier").replaceChildren();
  for (const one of answer.classifiers) {
    classifiers.set(one.name, one);
    const option = element("option", "", one.name);
    option.value = one.name;
    $("classifier").append(option);
  }
  if (classifiers.has(chosen)) $("classifier").value = chosen;
  const count = classifiers.size;
  $("loaded").textContent = count === 1 ? "1 classifier is loaded" : `${count} classifiers are loaded`;
  describe();
}

function describe() {
  const one = classifiers.get($("classifier").value);
  if (!one) return;
  const kind = one.task === "multi-label" ? "any number of labels" : "one label";
  $("about").textContent = `${one.labels.length} classes, ${kind} per text; ` +
    `${one.trainable_parameters.toLocaleString("en")} trained parameters`;
  $("texts-label").textContent = one.pair_columns
    ? `Pairs of texts, one per line: ${one.pair_columns[0]}, a tab, ${one.pair_columns[1]}`
    : "Texts, one per line";
}

function rows(one) {
  const lines = $("texts").value.split("\n").filter((line) => line.trim());
  if (!one.pair_columns) return lines;
  return lines.map((line, index) => {
    const pair = line.split("\t");
    if (pair.length !== 2) throw new Error(`Line ${index + 1}: separate its two texts by one tab.`);
    return pair;
  });
}

function bars(result) {
  const grid = element("div", "classes");
  for (const { label, probability } of result.probabilities) {
    const given = result.labels.includes(label);
    const track = element("div", "track");
    const fill = element("div", "fill");
    fill.style.width = `${100 * probability}%`;
    track.append(fill);
    grid.append(element("div", given ? "name given" : "name", label), track,
      element("div", "value", percent(probability)));
  }
  return grid;
}

function marked(text, explanation) {
  const line = element("p", "words");
  const parts = typeof text === "string" ? [text] : text;
  const largest = Math.max(1e-9, ...explanation.words.map((word) => Math.abs(word.effect)));
  parts.forEach((content, part) => {
    if (part) line.append("\t");
    // Positions count Unicode characters, which a string of JavaScript does not.
    const characters = Array.from(content);
    let done = 0;
    for (const word of explanation.words.filter((word) => word.part === part)) {
      line.append(characters.slice(done, word.start).join(""));
      const mark = element("mark", "", word.words);
      const color = word.effect >= 0 ? "--for" : "--against";
      const share = Math.abs(word.effect) / largest;
      mark.style.backgroundColor = `rgba(var(${color}), ${(0.6 * share).toFixed(3)})`;
      mark.title = `${word.effect >= 0 ? "+" : "\u2212"}${percent(Math.abs(word.effect))}`;
      line.append(mark);
      done = word.stop;
    }
    line.append(characters.slice(done).join(""));
  });
  return line;
}

async function explain(article, text, name, button) {
  button.disabled = true;
  say();
  try {
    const explanation = await ask("v1/explain", { text, classifier: name });
    const largest = Math.max(0, ...explanation.words.map((word) => Math.abs(word.effect)));
    const note = `Shading: how much the probability of ${explanation.label} ` +
      `(${percent(explanation.probability)}) falls (blue) or rises (orange) when a word is left ` +
      `out; at most ${(100 * largest).toPrecision(2)} percentage points.`;
    button.replaceWith(marked(text, explanation), element("p", "legend soft", note));
    article.querySelector(".text").remove();
  } catch (error) {
    button.disabled = false;
    say(error);
  }
}

function show(texts, results) {
  $("results").replaceChildren(...results.map((result, index) => {
    const text = texts[index];
    const article = element("article");
    const button = element("button", "", "Which words mattered?");
    button.type = "button";
    button.addEventListener("click", () => explain(article, text, result.classifier, button));
    const shown = typeof text === "string" ? text : text.join("\t");
    article.append(element("p", "text", shown), bars(result), button);
    return article;
  }));
}

async function classify(event) {
  event.preventDefault();
  say();
  $("run").disabled = true;
  try {
    if (!classifiers.size) await list();
    const name = $("classifier").value;
    const texts = rows(classifiers.get(name));
    const answer = await ask("v1/classify", { texts, classifier: name });
    show(texts, answer.results);
  } catch (error) {
    say(error);
  }
  $("run").disabled = false;
}

$("form").addEventListener("submit", classify);
$("classifier").addEventListener("change", describe);
$("token").addEventListener("change", () => list().then(() => say(), say));
$("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
list().catch(say);

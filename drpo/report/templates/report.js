"use strict";
// What is behind the tiles of the tree. Text of models goes into the page as text nodes and nowhere else.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  if (!data.trees.length) return;
  document.documentElement.classList.add("scripted");
  const byId = (id) => document.getElementById(id);
  const body = byId("node-body"), title = byId("node-title"), parentButton = byId("parent"), which = byId("which");
  const wide = window.matchMedia("(min-width: 60rem)");
  const SAME = 0, ADDED = 1, REMOVED = -1;
  let shown = 0; // the tree that is seen
  let opened = null; // the tile whose node is open
  let asChanges = true;

  const nodes = data.trees.map((tree) => new Map(tree.nodes.map((node) => [node.i, node])));

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.map((child) => (child instanceof Node ? child : document.createTextNode(child))));
    return element;
  }

  function foreign(tag, className, text) {
    const element = make(tag, className, text);
    element.dir = "auto";
    return element;
  }

  function textBox(text) {
    return text === "" ? make("p", "quiet", "Empty.") : foreign("div", "text", text);
  }

  function diffBox(parts) {
    const box = foreign("div", "text diff", "");
    for (const [mark, text] of parts) {
      if (mark === SAME) box.append(document.createTextNode(text));
      else if (mark === ADDED) box.append(make("ins", "", make("span", "mark", "{+ "), text, make("span", "mark", " +}")));
      else box.append(make("del", "", make("span", "mark", "[- "), text, make("span", "mark", " -]")));
    }
    return box;
  }

  const textOf = (node) => node.t.filter(([mark]) => mark !== REMOVED).map(([, text]) => text).join("");
  const shade = (reward) => "r" + Math.min(8, Math.max(0, Math.round((reward - 1) * 2)));
  const tileOf = (tree, id) => byId(`n-${tree}-${id}`);

  // The optimized text: what changed against the parent, or the whole.
  function optimized(node) {
    const name = data.prompts ? "System prompt" : "Response";
    const place = make("div", "");
    const has = node.p !== null && node.t.some(([mark]) => mark !== SAME);
    const draw = () => place.replaceChildren(has && asChanges ? diffBox(node.t) : textBox(textOf(node)));
    const parts = [make("h4", "", name)];
    if (has) {
      const group = make("p", "tools");
      group.setAttribute("role", "group");
      group.setAttribute("aria-label", `How the ${name.toLowerCase()} is shown`);
      const buttons = [[true, `Changes to node ${node.p}`], [false, "Whole text"]].map(([value, label]) => {
        const button = make("button", "", label);
        button.type = "button";
        button.setAttribute("aria-pressed", String(value === asChanges));
        button.addEventListener("click", () => {
          asChanges = value;
          buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
          draw();
        });
        return button;
      });
      group.append(...buttons);
      parts.push(group);
    } else if (node.p !== null) {
      parts.push(make("p", "quiet", `The same as that of node ${node.p}.`));
    }
    draw();
    return [...parts, place];
  }

  function scores(node) {
    if (!node.e.length) return [];
    const rows = node.e.map(([aspect, score, rationale]) => {
      const chip = make("span", `cell chip ${score === null ? "none" : shade(score)}`, score === null ? "n/a" : String(score));
      const name = make("th", "", make("bdi", "", data.aspects[aspect]));
      name.scope = "row";
      return make("tr", "", name, make("td", "", chip), make("td", "", foreign("div", "rationale", rationale)));
    });
    const heads = ["Aspect", "Score", "Rationale"].map((text) => {
      const head = make("th", "", text);
      head.scope = "col";
      return head;
    });
    return [
      make("h4", "", "Scores"),
      make("table", "", make("thead", "", make("tr", "", ...heads)), make("tbody", "", ...rows)),
    ];
  }

  function badges(tree, node) {
    const said = [`level ${node.d + 1}`, node.r === null ? "no reward" : `reward ${node.r.toFixed(2)}`];
    if (node.s !== null) said.push(`score ${node.s.toFixed(2)}`);
    const classes = tileOf(tree, node.i).classList;
    if (node.k) said.push("kept unchanged");
    if (classes.contains("beam")) said.push("in the beam");
    if (classes.contains("path")) said.push("on the path to the best");
    return make("ul", "badges", ...said.map((text) => make("li", "", text)));
  }

  function nodeParts(tree, node) {
    const parts = [badges(tree, node)];
    if (node.f !== undefined) parts.push(make("h4", "", "What went wrong"), foreign("p", "problem", node.f));
    parts.push(...optimized(node));
    parts.push(make("h4", "", data.prompts ? `Query ${node.q + 1}` : "Query"), textBox(data.queries[node.q]));
    if (node.h) {
      const list = make("ol", "", ...node.h.map((shot) => foreign("li", "line", data.shots[shot])));
      parts.push(make("h4", "", "Examples shown with it (their queries)"), list);
    }
    if (node.a !== undefined) {
      parts.push(make("h4", "", "Response"), textBox(node.a));
      if (node.x !== undefined) {
        const why = node.x === "length" ? ["It was cut at the longest length."] : ["It ended by: ", make("bdi", "", node.x)];
        parts.push(make("p", "quiet", ...why));
      }
    }
    return [...parts, ...scores(node)];
  }

  function droppedParts(tree, number) {
    const entry = byId(`dropped-${tree}-${number}`);
    const text = entry.querySelector(".text");
    return [
      make("h4", "", "Why"), foreign("p", "problem", entry.querySelector(".reason").textContent),
      make("h4", "", "What came"), text ? text.cloneNode(true) : make("p", "quiet", "No text came."),
    ];
  }

  function markTile(tile) {
    if (opened) opened.setAttribute("aria-selected", "false");
    tile.setAttribute("aria-selected", "true");
    opened = tile;
  }

  function rove(tile) {
    for (const other of tile.closest("svg").querySelectorAll('[role="treeitem"][tabindex="0"]')) other.tabIndex = -1;
    tile.tabIndex = 0;
  }

  function place(tile) {
    const [kind, tree, number] = tile.id.split("-");
    return { kind, tree: Number(tree), number: Number(number) };
  }

  // Opens a tile. Where the panel stands below the tree, `go` takes the reader there.
  function open(tile, go) {
    const { kind, tree, number } = place(tile);
    showTree(tree);
    markTile(tile);
    rove(tile);
    const isNode = kind === "n";
    const parent = isNode ? nodes[tree].get(number).p : data.trees[tree].dropped[number];
    title.textContent = isNode ? `Node ${number}` : `Dropped proposal ${number + 1}`;
    parentButton.hidden = parent === null;
    parentButton.textContent = `Parent: node ${parent}`;
    parentButton.dataset.tile = `n-${tree}-${parent}`;
    body.replaceChildren(...(isNode ? nodeParts(tree, nodes[tree].get(number)) : droppedParts(tree, number)));
    byId("node").scrollTop = 0;
    if (!go) return;
    byId("said").textContent = `${title.textContent} is open.`;
    history.replaceState(null, "", `#${tile.id}`);
    if (!wide.matches) {
      title.focus({ preventScroll: true });
      byId("node").scrollIntoView({ block: "start" });
    }
  }

  function showTree(tree) {
    shown = tree;
    data.trees.forEach((_, index) => { byId(`search-${index}`).hidden = index !== tree; });
    if (which) which.value = String(tree);
  }

  // From level to level along the edges, within a level from tile to tile.
  function neighbour(tile, key) {
    const svg = tile.closest("svg");
    const all = [...svg.querySelectorAll('[role="treeitem"]')];
    const at = all.indexOf(tile);
    const level = (item) => Number(item.getAttribute("aria-level"));
    if (key === "Home") return all[0];
    if (key === "End") return svg.querySelector(".best");
    if (key === "ArrowUp") return all.slice(0, at).reverse().find((item) => level(item) < level(tile));
    if (key === "ArrowDown") {
      const below = [];
      for (let next = at + 1; next < all.length && level(all[next]) > level(tile); next += 1) {
        if (level(all[next]) === level(tile) + 1) below.push(all[next]);
      }
      return below.find((item) => item.classList.contains("path")) || below.find((item) => item.classList.contains("beam")) || below[0];
    }
    const row = all.filter((item) => level(item) === level(tile));
    return row[row.indexOf(tile) + (key === "ArrowRight" ? 1 : -1)];
  }

  const moves = new Set(["Home", "End", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]);
  for (const svg of document.querySelectorAll('svg[role="tree"]')) {
    svg.addEventListener("click", (event) => {
      const tile = event.target.closest('[role="treeitem"]');
      if (tile) open(tile, true);
    });
    svg.addEventListener("keydown", (event) => {
      const tile = event.target.closest('[role="treeitem"]');
      if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        open(tile, true);
      } else if (moves.has(event.key)) {
        event.preventDefault();
        const next = neighbour(tile, event.key);
        if (next) {
          rove(next);
          next.focus();
        }
      }
    });
  }

  // The best, or the start of a search of which no level is done.
  function bestOf(tree) {
    return document.querySelector(`#search-${tree} [role="treeitem"][tabindex="0"]`);
  }

  function back() {
    const tile = opened || bestOf(shown);
    tile.focus();
    tile.scrollIntoView({ block: "center", inline: "center" });
  }
  byId("back").addEventListener("click", back);
  byId("node").addEventListener("keydown", (event) => { if (event.key === "Escape") back(); });
  parentButton.addEventListener("click", () => open(byId(parentButton.dataset.tile), true));
  if (which) {
    which.addEventListener("change", () => {
      open(bestOf(which.value), false);
    });
  }

  function openNamed() {
    const named = /^#[nx]-\d+-\d+$/.test(location.hash) ? byId(location.hash.slice(1)) : null;
    if (named) open(named, true);
    return named;
  }
  window.addEventListener("hashchange", openNamed);
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("#result details, #rewards details, #dropped details")) details.open = true;
  });
  showTree(0);
  if (!openNamed() && wide.matches) open(bestOf(0), false);
})();

// Search that finds Chinese. mdBook's index splits text at spaces, so that a Chinese sentence is one word. The index file
// also holds the text of every section: here that text is searched instead, behind mdBook's own box, keys and results.
// theme/head.hbs loads this before mdBook's searcher, which may read a cached index at once; additional-js loads it again.
"use strict";
if (!window.bookSearch) {
  const CHINESE = "\\u2e80-\\u9fff\\uac00-\\ud7af\\uf900-\\ufaff";
  const chinese = new RegExp(`[${CHINESE}]`);
  // A run of Chinese is one term and a run of anything else another: "KV缓存" also finds "KV 缓存".
  const term = new RegExp(`[${CHINESE}]+|[^\\s${CHINESE}]+`, "g");

  const finder = text => {
    const literal = text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    return new RegExp((chinese.test(text) ? "" : "(?<![a-z0-9_])") + literal, "g"); // letters: from a word's start
  };
  const count = (text, find) => (text.match(find) || []).length;

  window.bookSearch = index => {
    const sections = Object.entries(index.documentStore.docs).map(([ref, doc]) => {
      const [title, path, body] = [doc.title, doc.breadcrumbs, doc.body].map(text => text.toLowerCase());
      return { ref, doc, title, path, body };
    });
    return {
      search(query) {
        const terms = query.toLowerCase().match(term) || [];
        const finders = terms.map(finder), found = [];
        for (const { ref, doc, title, path, body } of sections) {
          const scores = finders.map(f => 8 * count(title, f) + 3 * count(path, f) + Math.log2(1 + count(body, f)));
          if (!scores.length || scores.some(score => score === 0)) continue;
          const hits = finders.map(f => body.search(f)).filter(at => at >= 0);
          const start = Math.max(0, Math.min(...hits, body.length) - 60);
          let near = doc.body.slice(hits.length ? start : 0, (hits.length ? start : 0) + 220);
          // mdBook marks whole words in what it shows: set Chinese terms apart.
          for (const text of terms) if (chinese.test(text)) near = near.replaceAll(text, ` ${text} `);
          found.push({ ref, score: scores.reduce((a, b) => a + b), doc: { ...doc, body: near } });
        }
        return found.sort((a, b) => b.score - a.score);
      },
    };
  };

  let lunr;
  Object.defineProperty(window, "elasticlunr", {
    get: () => lunr,
    set(value) { lunr = value; lunr.Index.load = window.bookSearch; },
  });
  // Text from an input method or a paste comes with no key event, which is all that mdBook listens to.
  addEventListener("DOMContentLoaded", () => {
    const bar = document.getElementById("mdbook-searchbar");
    bar?.addEventListener("input", () => bar.dispatchEvent(new Event("keyup")));
  });
}

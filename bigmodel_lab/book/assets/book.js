// Sliders over stored frames, and what mdBook's page lacks for keyboards and screen readers.
"use strict";

// A slider's frames lie in a script of their own, which is asked for when the slider is first touched and which calls
// bookFrames. A script, because a page opened from a file may load scripts and may not fetch.
function bookFrames([frames, captions]) {
  document.currentScript.show(frames, captions);
}

document.querySelectorAll(".slider").forEach(slider => {
  const inputs = [...slider.querySelectorAll("input")];
  const choices = inputs.map(input => JSON.parse(input.dataset.choices));
  const picture = slider.querySelector(".frame"), caption = slider.querySelector("figcaption");
  let loaded = null, script = null;

  function load() {
    if (script) return;
    script = document.createElement("script");
    script.src = slider.dataset.frames;
    script.show = (frames, captions) => { loaded = { frames, captions }; draw(); };
    script.onerror = () => { caption.textContent = "The other pictures could not be loaded."; script = null; };
    document.head.append(script);
  }
  function draw() {
    let at = 0; // the last name runs fastest
    inputs.forEach((input, i) => {
      const choice = choices[i][input.value];
      input.nextElementSibling.textContent = choice;
      input.setAttribute("aria-valuetext", choice);
      at = at * choices[i].length + Number(input.value);
    });
    if (!loaded) return load();
    picture.innerHTML = loaded.frames[at];
    caption.textContent = loaded.captions[at];
  }
  for (const input of inputs) {
    input.addEventListener("focus", load);
    input.addEventListener("input", draw);
    input.addEventListener("keydown", event => event.stopPropagation()); // mdBook turns the page with the arrows
  }
});

// mdBook's switch for the sidebar is a label, which no key reaches.
{
  const label = document.getElementById("mdbook-sidebar-toggle");
  const box = document.getElementById("mdbook-sidebar-toggle-anchor");
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: label.className, title: label.title });
  button.append(...label.childNodes);
  button.setAttribute("aria-label", label.getAttribute("aria-label"));
  button.setAttribute("aria-controls", "mdbook-sidebar");
  const tell = () => button.setAttribute("aria-expanded", box.checked);
  button.addEventListener("click", () => { label.click(); tell(); }); // mdBook listens to the label, too
  tell();
  label.before(button);
  label.style.display = "none";
}

// The skip link comes first, bar and search are landmarks, and what scrolls sideways can be reached by keyboard.
{
  document.body.prepend(document.querySelector(".skip"));
  document.getElementById("mdbook-menu-bar").setAttribute("role", "banner");
  document.getElementById("mdbook-search-wrapper")?.setAttribute("role", "search");
  document.getElementById("mdbook-searchbar")?.setAttribute("aria-label", "Search this book");
  const boxes = "main pre, main pre > code, main .table-wrapper, main .html, main .katex-display";
  const reach = () => document.querySelectorAll(boxes).forEach(box => {
    const long = box.matches(".output pre") && box.scrollHeight > box.clientHeight;
    if (long || box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  });
  reach();
  document.fonts.ready.then(reach);
  addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true); // what was folded has no size
}

// Elements are made of text only: nothing that a meter or a stranger sent is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function icon(name, className) {
  const image = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/static/icons.svg#${name}`);
  image.setAttribute("class", className);
  image.setAttribute("aria-hidden", "true");
  image.append(use);
  return image;
}

/** Set the text only where it changed: the screen reader and the layout stay calm. */
export function text(target, value) {
  if (target.textContent !== value) target.textContent = value;
}

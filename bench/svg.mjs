/** What the charts share. They bring their own background, so that they can be read on any page. */

export const STYLE = `
  .card { fill: #ffffff; stroke: #d0d7de } .title { fill: #1f2328; font-weight: 600; font-size: 18px }
  text { font-family: system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', Arial, sans-serif; font-size: 13px; fill: #1f2328 }
  .panel { font-weight: 600; font-size: 14px } .quiet { fill: #59636e; font-size: 12px } .strong { font-weight: 600 }
  .value { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round }
  .axis { stroke: #d0d7de } .reference { stroke: #59636e; stroke-dasharray: 3 3 } .range { stroke: #1f2328; stroke-opacity: .55 }
  .none { fill: #c9d1d9 } .vxlan { fill: #8c959f } .inlay { fill: #0a8f7f }
  .ordinary { fill: #9ed4cb }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #3d444d } .title, text { fill: #f0f6fc } .value { stroke: #0d1117 } .quiet { fill: #9198a1 }
    .axis { stroke: #3d444d } .reference { stroke: #9198a1 } .range { stroke: #f0f6fc }
    .none { fill: #3d444d } .vxlan { fill: #6e7681 } .inlay { fill: #2fb5a3 }
    .ordinary { fill: #1d5f56 }
  }
`;

export function text(x, y, name, words) {
  return `<text x="${x}" y="${y}" class="${name}">${escaped(words)}</text>`;
}

export function line(name, x1, y1, x2, y2) {
  return `<line class="${name}" x1="${px(x1)}" y1="${px(y1)}" x2="${px(x2)}" y2="${px(y2)}"/>`;
}

export function px(value) {
  return Number(value.toFixed(1));
}

export function escaped(words) {
  return words.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

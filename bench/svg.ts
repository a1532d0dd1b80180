// A chart of ECharts as a picture that stays the same for the same data.

import type { EChartsType } from 'echarts';

/** Draws and disposes of it. */
export function svgOf(chart: EChartsType): string {
  const svg = chart.renderToSVGString({ useViewBox: true });
  chart.dispose();
  return `${withoutStyles(svg)}\n`;
}

/** Styles for a pointer that a picture never meets, their names numbered anew at every drawing. */
function withoutStyles(svg: string): string {
  return svg.replaceAll(/<style[^]*?<\/style>\n?/g, '').replaceAll(/ class="zr[^"]*"/g, '');
}

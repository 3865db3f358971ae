// Points on WebGL2, through twgl.js: one buffer of positions, one of colours, one call to draw.
import * as twgl from "twgl.js";
import type { Camera } from "./camera";
import { pointSize, type Renderer, shuffled } from "./renderer";

const VERTEX = `#version 300 es
in vec2 position;
in vec4 colour;
uniform vec2 centre;
uniform vec2 scale;
uniform float size;
uniform float faint;
out vec4 tint;
void main() {
  gl_Position = vec4((position - centre) * scale, 0.0, 1.0);
  gl_PointSize = size;
  tint = colour;
  // Faint points are drawn first, and all others on top of them.
  if ((colour.a < 0.9) != (faint > 0.5)) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec4 tint;
uniform float size;
out vec4 pixel;
void main() {
  float distance = length(gl_PointCoord - 0.5) * size;
  float edge = clamp(size * 0.5 - distance + 0.5, 0.0, 1.0);
  if (edge <= 0.0) discard;
  float alpha = tint.a * edge;
  pixel = vec4(tint.rgb * alpha, alpha);
}`;

export class GlRenderer implements Renderer {
  readonly kind = "webgl2";
  private readonly program: twgl.ProgramInfo;
  private buffers: twgl.BufferInfo | null = null;
  private order: Uint32Array = new Uint32Array();
  private fitted = 0;
  private hasFaint = false;

  constructor(private readonly gl: WebGL2RenderingContext) {
    this.program = twgl.createProgramInfo(gl, [VERTEX, FRAGMENT]);
  }

  setPositions(positions: Float32Array): void {
    this.order = shuffled(positions.length / 2);
    this.fitted = 0;
    const sorted = new Float32Array(positions.length);
    this.order.forEach((cell, at) => sorted.set(positions.subarray(2 * cell, 2 * cell + 2), 2 * at));
    this.delete();
    this.buffers = twgl.createBufferInfoFromArrays(this.gl, {
      position: { numComponents: 2, data: sorted },
      colour: { numComponents: 4, data: new Uint8Array(2 * positions.length), type: Uint8Array, normalize: true },
    });
  }

  setColours(colours: Uint8Array): void {
    const from = new Uint32Array(colours.buffer, colours.byteOffset, colours.length / 4);
    const sorted = new Uint32Array(from.length);
    this.order.forEach((cell, at) => (sorted[at] = from[cell]!));
    const bytes = new Uint8Array(sorted.buffer);
    this.hasFaint = false;
    for (let at = 3; at < bytes.length && !this.hasFaint; at += 4) this.hasFaint = bytes[at]! < 255;
    twgl.setAttribInfoBufferFromArray(this.gl, this.buffers!.attribs!.colour!, bytes);
  }

  draw(view: Camera, size: [number, number], ratio: number, share: number): void {
    const { gl, buffers } = this;
    if (!buffers) return;
    this.fitted ||= view.scale;
    gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.useProgram(this.program.program);
    twgl.setBuffersAndAttributes(gl, this.program, buffers);
    const uniforms = {
      centre: [view.x, view.y],
      scale: [(2 * view.scale) / size[0], (2 * view.scale) / size[1]],
      size: ratio * pointSize(this.order.length, view, this.fitted),
    };
    for (const faint of this.hasFaint ? [1, 0] : [0]) {
      twgl.setUniforms(this.program, { ...uniforms, faint });
      twgl.drawBufferInfo(gl, buffers, gl.POINTS, Math.ceil(share * this.order.length));
    }
  }

  close(): void {
    this.delete();
    this.gl.deleteProgram(this.program.program);
  }

  private delete(): void {
    for (const attribute of Object.values(this.buffers?.attribs ?? {})) this.gl.deleteBuffer(attribute.buffer ?? null);
    this.buffers = null;
  }
}

//! The compute shaders, in WGSL. Each binds its numbers at 0 (`u`) and tensors from 1 on.
//!
//! Values lie as everywhere: pictures n × h × w × channels, parameters flat, weights OIHW.

use std::fmt::Write;

/// Threads of a workgroup.
pub const THREADS: u32 = 256;
/// The most workgroups of a shader whose threads stride over all values; each leaves one partial sum.
pub const STRIDING: u32 = 1024;
/// Pixels that a thread of a convolution computes, side by side.
const RUN: usize = 8;

/// How a convolution is cut: tiles of `WIDTH` × `HEIGHT` pixels, `QUADS` × 4 output channels, from
/// `CHUNK` input channels at a time that are held in the workgroup's memory.
pub const WIDTH: usize = 16;
/// Rows of a tile.
pub const HEIGHT: usize = 8;
/// Groups of four output channels that a workgroup computes.
pub const QUADS: usize = 16;
const CHUNK: usize = 4;

/// The side of a tile of a convolution to few channels.
pub const NARROW_SIDE: usize = 16;
/// Channels that are few.
pub const FEW: usize = 4;

/// Weights as [tap][from][to / 4] vectors of four, zero beyond `to`; `transposed` is the layer's
/// adjoint: channels exchanged, taps turned by 180°.
pub const PACK: &str = "
struct U { weight: u32, input: u32, output: u32, transposed: u32 }
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> params: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let from_count = select(u.input, u.output, u.transposed == 1u);
    let to_count = select(u.output, u.input, u.transposed == 1u);
    let padded = (to_count + 3u) / 4u * 4u;
    for (var at = id.x; at < 9u * from_count * padded; at += groups.x * 256u) {
        let tap = at / (from_count * padded);
        let f = at / padded % from_count;
        let t = at % padded;
        var value = 0.0;
        if (t < to_count) {
            if (u.transposed == 1u) {
                value = params[u.weight + (f * u.input + t) * 9u + 8u - tap];
            } else {
                value = params[u.weight + (t * u.input + f) * 9u + tap];
            }
        }
        packed[at] = value;
    }
}
";

/// How `value`, of the type `kind`, goes through the gate, whose mask has `kept` there, and the residual
/// is added.
pub(super) fn ending(kind: &str, kept: &str) -> String {
    format!(
        "
    // Written so that what is not a number stays one.
    if (u.gate == 1u) {{ value = select(value, {kind}(0.0), value <= {kind}(0.0)); }}
    if (u.gate == 2u) {{ value = select(value, {kind}(0.0), {kept} <= {kind}(0.0)); }}
    if (u.residual == 1u) {{ value += residual[at]; }}
"
    )
}

/// How a convolution ends: gate(sum + bias) + residual, in values of the type `value`, of which a pixel
/// has `count` (WGSL).
fn finish(value: &str, count: &str, bias: &str) -> String {
    let ending = ending(value, "mask[at]");
    format!(
        "
fn finish(image: u32, y: u32, x: u32, o: u32, sum: {value}) {{
    if (y >= u.height || x >= u.width || o >= {count}) {{ return; }}
    let at = ((image * u.height + y) * u.width + x) * {count} + o;
    var value = sum;
    if (u.first == 0u) {{ value += out[at]; }}
    if (u.last == 1u) {{
        if (u.has_bias == 1u) {{ value += {bias}; }}
{ending}    }}
    out[at] = value;
}}
"
    )
}

/// What the convolutions bind; `value` is what they write.
fn bindings(value: &str) -> String {
    format!(
        "
struct U {{
    height: u32, width: u32, input: u32, output: u32,
    blocks: u32, bias: u32, has_bias: u32, first: u32,
    last: u32, gate: u32, residual: u32, unused: u32,
}}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> x_in: array<f32>;
@group(0) @binding(2) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> mask: array<{value}>;
@group(0) @binding(5) var<storage, read> residual: array<{value}>;
@group(0) @binding(6) var<storage, read_write> out: array<{value}>;
"
    )
}

/// One term of gate(Σ W ∗ x + b) + residual as an implicit matrix product: a workgroup computes a tile
/// of pixels × 64 channels, from a few input channels at a time that it copies into its own
/// memory with the weights; each thread holds [`RUN`] pixels × 4 channels in registers. Outputs in
/// `vectors` are for channels in fours.
pub fn convolution(vectors: bool) -> String {
    let (width, height, quads, chunk) = (WIDTH, HEIGHT, QUADS, CHUNK);
    assert_eq!(width * height * quads, THREADS as usize * RUN, "each thread has one run of pixels");
    let (columns, rows) = (width + 2, height + 2);
    let value = if vectors { "vec4<f32>" } else { "f32" };
    let finish = if vectors {
        let bias = (0..4).map(|k| format!("bias[u.bias + 4u * o + {k}u]")).collect::<Vec<_>>().join(", ");
        finish(value, "(u.output / 4u)", &format!("vec4<f32>({bias})"))
    } else {
        finish(value, "u.output", "bias[u.bias + o]")
    };
    let mut sums = String::new();
    for j in 0..RUN {
        let _ = writeln!(sums, "    var s{j} = vec4<f32>(0.0);");
    }
    let mut taps = String::new();
    for ky in 0..3 {
        let _ = writeln!(taps, "                base = i * {}u + (row + {ky}u) * {columns}u + left;", columns * rows);
        for j in 0..RUN + 2 {
            let _ = writeln!(taps, "                let v{ky}_{j} = xs[base + {j}u];");
        }
        for kx in 0..3 {
            let tap = 3 * ky + kx;
            let _ = writeln!(taps, "                let w{tap} = ws[({tap}u * {chunk}u + i) * {quads}u + quad];");
            for j in 0..RUN {
                let _ = writeln!(taps, "                s{j} = fma(vec4<f32>(v{ky}_{}), w{tap}, s{j});", j + kx);
            }
        }
    }
    let mut ends = String::new();
    for j in 0..RUN {
        if vectors {
            let _ = writeln!(ends, "    finish(image, y, x + {j}u, o, s{j});");
        } else {
            for (k, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
                let _ = writeln!(ends, "    finish(image, y, x + {j}u, 4u * o + {k}u, s{j}.{part});");
            }
        }
    }
    format!(
        "{bindings}
var<workgroup> xs: array<f32, {xs}>;
var<workgroup> ws: array<vec4<f32>, {ws}>;
{finish}
@compute @workgroup_size({THREADS})
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {{
    let image = group.z / u.blocks;
    let block = group.z % u.blocks;
    let quads = (u.output + 3u) / 4u;
    let quad = thread % {quads}u;
    let run = thread / {quads}u;
    let row = run / {runs}u;
    let left = run % {runs}u * {RUN}u;
{sums}
    for (var channel = 0u; channel < u.input; channel += {chunk}u) {{
        for (var at = thread; at < {xs}u; at += {THREADS}u) {{
            let i = at % {chunk}u;
            let pixel = at / {chunk}u;
            // One pixel more on each side: an unsigned number below zero is a very large one.
            let y = group.y * {height}u + pixel / {columns}u - 1u;
            let x = group.x * {width}u + pixel % {columns}u - 1u;
            var value = 0.0;
            if (y < u.height && x < u.width && channel + i < u.input) {{
                value = x_in[((image * u.height + y) * u.width + x) * u.input + channel + i];
            }}
            xs[i * {plane}u + pixel] = value;
        }}
        for (var at = thread; at < {ws}u; at += {THREADS}u) {{
            let q = block * {quads}u + at % {quads}u;
            let i = at / {quads}u % {chunk}u;
            let tap = at / {per_tap}u;
            var value = vec4<f32>(0.0);
            if (q < quads && channel + i < u.input) {{
                value = packed[(tap * u.input + channel + i) * quads + q];
            }}
            ws[at] = value;
        }}
        workgroupBarrier();
        for (var i = 0u; i < min({chunk}u, u.input - channel); i++) {{
            var base = 0u;
{taps}
        }}
        workgroupBarrier();
    }}
    let y = group.y * {height}u + row;
    let x = group.x * {width}u + left;
    let o = block * {quads}u + quad;
{ends}
}}
",
        bindings = bindings(value),
        xs = chunk * columns * rows,
        ws = 9 * chunk * quads,
        plane = columns * rows,
        per_tap = chunk * quads,
        runs = width / RUN,
    )
}

/// The same for up to four output channels: a thread computes one pixel. Eight input channels at a time
/// go through the workgroup's memory.
pub fn narrow() -> String {
    let side = NARROW_SIDE + 2;
    let (mut sums, mut ends) = (String::new(), String::new());
    for ky in 0..3 {
        for kx in 0..3 {
            let tap = 3 * ky + kx;
            let _ = writeln!(sums, "            let x{tap} = xs[q][row + {ky}u][column + {kx}u];");
            for (k, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
                let _ = writeln!(sums, "            sum = fma(vec4<f32>(x{tap}.{part}), ws[q][{tap}][{k}], sum);");
            }
        }
    }
    for (k, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
        let _ = writeln!(ends, "    finish(image, y0 + row, x0 + column, {k}u, sum.{part});");
    }
    format!(
        "{bindings}
var<workgroup> xs: array<array<array<vec4<f32>, {side}>, {side}>, 2>;
var<workgroup> ws: array<array<array<vec4<f32>, 4>, 9>, 2>;
{finish}
fn value_at(pixel: u32, channel: u32) -> f32 {{
    if (channel >= u.input) {{ return 0.0; }}
    return x_in[pixel * u.input + channel];
}}

@compute @workgroup_size({THREADS})
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {{
    let image = group.z;
    let y0 = group.y * {NARROW_SIDE}u;
    let x0 = group.x * {NARROW_SIDE}u;
    let row = thread / {NARROW_SIDE}u;
    let column = thread % {NARROW_SIDE}u;
    var sum = vec4<f32>(0.0);
    for (var channel = 0u; channel < u.input; channel += 8u) {{
        for (var at = thread; at < {count}u; at += {THREADS}u) {{
            let q = at % 2u;
            let pixel = at / 2u;
            // One pixel more on each side: an unsigned number below zero is a very large one.
            let y = y0 + pixel / {side}u - 1u;
            let x = x0 + pixel % {side}u - 1u;
            var value = vec4<f32>(0.0);
            if (y < u.height && x < u.width) {{
                let place = (image * u.height + y) * u.width + x;
                let c = channel + 4u * q;
                value = vec4<f32>(
                    value_at(place, c), value_at(place, c + 1u), value_at(place, c + 2u), value_at(place, c + 3u));
            }}
            xs[q][pixel / {side}u][pixel % {side}u] = value;
        }}
        if (thread < 72u) {{
            let i = thread % 8u;
            let tap = thread / 8u;
            var value = vec4<f32>(0.0);
            if (channel + i < u.input) {{ value = packed[tap * u.input + channel + i]; }}
            ws[i / 4u][tap][i % 4u] = value;
        }}
        workgroupBarrier();
        for (var q = 0u; q < 2u; q++) {{
{sums}
        }}
        workgroupBarrier();
    }}
{ends}
}}
",
        bindings = bindings("f32"),
        finish = finish("f32", "u.output", "bias[u.bias + o]"),
        count = 2 * side * side,
    )
}

/// Rows of pictures that a partial sum of a weight gradient covers are given by the caller; a workgroup
/// sums one tap of 64 × 64 channels over them, 16 pixels at a time: sums[split][tap][input][output].
pub const WEIGHT_SUMS: &str = "
struct U {
    lines: u32, height: u32, width: u32, input: u32,
    output: u32, each: u32, before: u32, blocks: u32,
}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> delta: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

var<workgroup> inputs: array<vec4<f32>, 256>;
var<workgroup> outputs: array<vec4<f32>, 256>;

fn input_at(line: u32, ky: u32, x: u32, c: u32) -> f32 {
    if (x >= u.width || c >= u.input) { return 0.0; }
    return a[((line + ky - 1u) * u.width + x) * u.input + c];
}

fn output_at(line: u32, x: u32, c: u32) -> f32 {
    if (x >= u.width || c >= u.output) { return 0.0; }
    return delta[(line * u.width + x) * u.output + c];
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let split = group.x;
    let tap = group.y;
    let ky = tap / 3u;
    let kx = tap % 3u;
    let input = group.z / u.blocks * 64u;
    let output = group.z % u.blocks * 64u;
    let i = thread % 16u;
    let o = thread / 16u;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    let end = min((split + 1u) * u.each, u.lines);
    for (var line = split * u.each; line < end; line++) {
        let y = line % u.height + ky - 1u;
        // The row above the first, or below the last, is zero.
        if (y < u.height) {
            for (var x = 0u; x < u.width; x += 16u) {
                let pixel = x + thread / 16u;
                let c = thread % 16u * 4u;
                let ci = input + c;
                let co = output + c;
                let px = pixel + kx - 1u;
                // Beyond the row's end δ is zero, so that what a holds there does not matter.
                inputs[thread] = vec4<f32>(
                    input_at(line, ky, px, ci), input_at(line, ky, px, ci + 1u),
                    input_at(line, ky, px, ci + 2u), input_at(line, ky, px, ci + 3u));
                outputs[thread] = vec4<f32>(
                    output_at(line, pixel, co), output_at(line, pixel, co + 1u),
                    output_at(line, pixel, co + 2u), output_at(line, pixel, co + 3u));
                workgroupBarrier();
                for (var p = 0u; p < 16u; p++) {
                    let v = inputs[p * 16u + i];
                    let d = outputs[p * 16u + o];
                    s0 = fma(vec4<f32>(v.x), d, s0);
                    s1 = fma(vec4<f32>(v.y), d, s1);
                    s2 = fma(vec4<f32>(v.z), d, s2);
                    s3 = fma(vec4<f32>(v.w), d, s3);
                }
                workgroupBarrier();
            }
        }
    }
    let base = ((u.before + split) * 9u + tap) * u.input * u.output;
    for (var k = 0u; k < 4u; k++) {
        let ci = input + i * 4u + k;
        var s = s0;
        if (k == 1u) { s = s1; }
        if (k == 2u) { s = s2; }
        if (k == 3u) { s = s3; }
        for (var l = 0u; l < 4u; l++) {
            let co = output + o * 4u + l;
            if (ci < u.input && co < u.output) {
                sums[base + ci * u.output + co] = s[l];
            }
        }
    }
}
";

/// The same where one side of the layer has up to four channels (`few`): a workgroup sums all taps of
/// 64 of the other side's channels, a thread those of one channel and every fourth pixel of a row.
/// `from_few` says that the input is the side with few.
pub fn few_sums() -> String {
    let (mut begin, mut sums, mut ends) = (String::new(), String::new(), String::new());
    let read = |j| format!("                let v{j} = many_at(line, x0 + x + {}u, c);\n", 4 * j);
    let reads: String = (0..4).map(read).collect();
    for tap in 0..9 {
        let (ky, kx) = (tap / 3, tap % 3);
        let _ = writeln!(begin, "    var s{tap} = vec4<f32>(0.0);");
        for j in 0..4 {
            let near = format!("near[{ky}][x + {}u]", 4 * j + kx);
            let _ = writeln!(sums, "                s{tap} = fma(vec4<f32>(v{j}), {near}, s{tap});");
        }
        let _ = writeln!(ends, "    finish(thread, group, {tap}u, s{tap});");
    }
    format!(
        "
struct U {{
    lines: u32, height: u32, width: u32, many: u32,
    few: u32, each: u32, before: u32, from_few: u32,
}}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> many: array<f32>;
@group(0) @binding(2) var<storage, read> few: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

var<workgroup> near: array<array<vec4<f32>, 66>, 3>;
var<workgroup> partial: array<vec4<f32>, 256>;

fn many_at(line: u32, x: u32, c: u32) -> f32 {{
    let inside = (x < u.width) & (c < u.many);
    return select(0.0, many[select(0u, (line * u.width + x) * u.many + c, inside)], inside);
}}

fn few_at(pixel: u32, c: u32) -> f32 {{
    if (c >= u.few) {{ return 0.0; }}
    return few[pixel * u.few + c];
}}

fn finish(thread: u32, group: vec3<u32>, seen: u32, sum: vec4<f32>) {{
    partial[thread] = sum;
    workgroupBarrier();
    let c = group.y * 64u + thread;
    if (thread < 64u && c < u.many) {{
        let total = partial[thread] + partial[thread + 64u] + partial[thread + 128u] + partial[thread + 192u];
        // A weight's input is at its tap; seen from the input, the output is on the other side.
        let tap = select(8u - seen, seen, u.from_few == 1u);
        let base = ((u.before + group.x) * 9u + tap) * u.many * u.few;
        for (var f = 0u; f < u.few; f++) {{
            let at = select(c * u.few + f, f * u.many + c, u.from_few == 1u);
            sums[base + at] = total[f];
        }}
    }}
    workgroupBarrier();
}}

@compute @workgroup_size({THREADS})
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {{
    let c = group.y * 64u + thread % 64u;
{begin}
    let end = min((group.x + 1u) * u.each, u.lines);
    for (var line = group.x * u.each; line < end; line++) {{
        for (var x0 = 0u; x0 < u.width; x0 += 64u) {{
            if (thread < 198u) {{
                // An unsigned number below zero is a very large one.
                let y = line % u.height + thread / 66u - 1u;
                let x = x0 + thread % 66u - 1u;
                var value = vec4<f32>(0.0);
                if (y < u.height && x < u.width) {{
                    let pixel = (line + thread / 66u - 1u) * u.width + x;
                    value = vec4<f32>(few_at(pixel, 0u), few_at(pixel, 1u), few_at(pixel, 2u), few_at(pixel, 3u));
                }}
                near[thread / 66u][thread % 66u] = value;
            }}
            workgroupBarrier();
            // Four at a time: they are long on their way.
            for (var x = thread / 64u; x < min(64u, u.width - x0); x += 16u) {{
{reads}
{sums}
            }}
            workgroupBarrier();
        }}
    }}
{ends}
}}
"
    )
}

/// Adds those sums, in the order of the splits, to a flat gradient: 32 of its values a workgroup, whose
/// threads take every eighth split.
pub const WEIGHT_GRADIENT: &str = "
struct U { splits: u32, input: u32, output: u32, weight: u32 }
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> grad: array<f32>;

var<workgroup> partial: array<array<f32, 32>, 8>;

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let lane = thread % 32u;
    let part = thread / 32u;
    let count = 9u * u.input * u.output;
    for (var first = 32u * group.x; first < count; first += 32u * groups.x) {
        let at = first + lane;
        var sum = 0.0;
        if (at < count) {
            for (var split = part; split < u.splits; split += 8u) {
                sum += sums[split * count + at];
            }
        }
        partial[part][lane] = sum;
        workgroupBarrier();
        if (part == 0u && at < count) {
            sum = 0.0;
            for (var k = 0u; k < 8u; k++) { sum += partial[k][lane]; }
            let tap = at / (u.input * u.output);
            let i = at / u.output % u.input;
            let o = at % u.output;
            grad[u.weight + (o * u.input + i) * 9u + tap] += sum;
        }
        workgroupBarrier();
    }
}
";

/// Sums of δ over some pixels: sums[split][channel]. `span` channels (a power of two up to 256) are
/// summed at a time, each by 256 / `span` threads.
pub const BIAS_SUMS: &str = "
struct U { pixels: u32, each: u32, output: u32, span: u32 }
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> delta: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let end = min((group.x + 1u) * u.each, u.pixels);
    for (var c0 = 0u; c0 < u.output; c0 += u.span) {
        let c = c0 + thread % u.span;
        var sum = 0.0;
        if (c < u.output) {
            for (var pixel = group.x * u.each + thread / u.span; pixel < end; pixel += 256u / u.span) {
                sum += delta[pixel * u.output + c];
            }
        }
        partial[thread] = sum;
        workgroupBarrier();
        for (var half = 128u; half >= u.span; half /= 2u) {
            if (thread < half) { partial[thread] += partial[thread + half]; }
            workgroupBarrier();
        }
        if (thread < u.span && c < u.output) { sums[group.x * u.output + c] = partial[thread]; }
        workgroupBarrier();
    }
}
";

/// Adds those sums to a flat gradient, a channel a workgroup.
pub fn bias_gradient() -> String {
    format!(
        "
struct U {{ splits: u32, output: u32, bias: u32, unused: u32 }}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> grad: array<f32>;
{TREE}
@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {{
    var sum = 0.0;
    for (var split = thread; split < u.splits; split += 256u) {{
        sum += sums[split * u.output + group.x];
    }}
    gather(thread, sum);
    if (thread == 0u) {{ grad[u.bias + group.x] += partial[0]; }}
}}
"
    )
}

/// The workgroup's sum of each thread's `value`, left in `partial[0]`.
const TREE: &str = "
var<workgroup> partial: array<f32, 256>;

fn gather(thread: u32, value: f32) {
    partial[thread] = value;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (thread < half) { partial[thread] += partial[thread + half]; }
        workgroupBarrier();
    }
}
";

/// How a shader begins whose workgroups each leave a partial sum.
const SUMMING: &str = "
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) thread: u32,
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
";

/// |output − target| over a window, a partial sum a workgroup, and the derivative of the whole.
pub fn l1() -> String {
    format!(
        "
struct U {{
    length: u32, height: u32, width: u32, channels: u32,
    top: u32, left: u32, rows: u32, columns: u32,
    step: f32, unused0: u32, unused1: u32, unused2: u32,
}}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> output: array<f32>;
@group(0) @binding(2) var<storage, read> wanted: array<f32>;
@group(0) @binding(3) var<storage, read_write> delta: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;
{TREE}{SUMMING}    var sum = 0.0;
    for (var at = id.x; at < u.length; at += groups.x * 256u) {{
        let pixel = at / u.channels;
        let y = pixel / u.width % u.height;
        let x = pixel % u.width;
        var derivative = 0.0;
        if (y >= u.top && y < u.top + u.rows && x >= u.left && x < u.left + u.columns) {{
            let difference = output[at] - wanted[at];
            sum += abs(difference);
            if (difference > 0.0) {{ derivative = u.step; }}
            if (difference < 0.0) {{ derivative = -u.step; }}
        }}
        delta[at] = derivative;
    }}
    gather(thread, sum);
    if (thread == 0u) {{ sums[group.x] = partial[0]; }}
}}
"
    )
}

/// Σ x · y over a range, a partial sum a workgroup.
pub fn dot() -> String {
    format!(
        "
struct U {{ begin: u32, end: u32, unused0: u32, unused1: u32 }}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;
{TREE}{SUMMING}    var sum = 0.0;
    for (var at = u.begin + id.x; at < u.end; at += groups.x * 256u) {{
        sum = fma(x[at], y[at], sum);
    }}
    gather(thread, sum);
    if (thread == 0u) {{ sums[group.x] = partial[0]; }}
}}
"
    )
}

/// y += alpha · x over a range.
pub const AXPY: &str = "
struct U { begin: u32, end: u32, alpha: f32, unused: u32 }
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var at = u.begin + id.x; at < u.end; at += groups.x * 256u) {
        y[at] = fma(u.alpha, x[at], y[at]);
    }
}
";

/// y *= alpha over a range.
pub const SCALE: &str = "
struct U { begin: u32, end: u32, alpha: f32, unused: u32 }
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var at = u.begin + id.x; at < u.end; at += groups.x * 256u) {
        y[at] = u.alpha * y[at];
    }
}
";

/// A step of Adam.
pub const ADAM: &str = "
struct U { length: u32, rate: f32, beta1: f32, beta2: f32, rest1: f32, rest2: f32, epsilon: f32, unused: u32 }
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> grad: array<f32>;
@group(0) @binding(2) var<storage, read_write> first: array<f32>;
@group(0) @binding(3) var<storage, read_write> second: array<f32>;
@group(0) @binding(4) var<storage, read_write> params: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var at = id.x; at < u.length; at += groups.x * 256u) {
        let g = grad[at];
        let m = u.beta1 * first[at] + u.rest1 * g;
        let v = u.beta2 * second[at] + u.rest2 * g * g;
        first[at] = m;
        second[at] = v;
        params[at] -= u.rate * m / (sqrt(v) + u.epsilon);
    }
}
";

/// A [`crate::degrade::Map`], whose table holds, as 32-bit words: where each row's taps begin (rows + 1
/// numbers), the rows' taps (input, weight); how many taps each column has, the inputs of the columns'
/// first taps, of their second ones, …, so that neighbouring threads read neighbouring words, and their
/// weights likewise; and the kernel. The weight of a tap is a number's bits where the map is a `product`;
/// else the place of a kernel's row and in it. Each thread sums pixels of up to three channels; of the
/// squares of all values each workgroup leaves a partial sum.
pub fn map() -> String {
    format!(
        "
struct U {{
    rows: u32, columns: u32, channels: u32, width: u32,
    row_taps: u32, counts: u32, inputs: u32, weights: u32,
    kernel: u32, product: u32, unused0: u32, unused1: u32,
}}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read> image: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;
{TREE}{SUMMING}    var total = 0.0;
    for (var pixel = id.x; pixel < u.rows * u.columns; pixel += groups.x * 256u) {{
        let i = pixel / u.columns;
        let j = pixel % u.columns;
        let end = table[u.counts + j] * u.columns + j;
        let bottom = u.row_taps + 2u * table[i + 1u];
        for (var c = 0u; c < u.channels; c += 3u) {{
            // Of fewer than three channels the last is made again, and not written.
            let c1 = min(c + 1u, u.channels - 1u);
            let c2 = min(c + 2u, u.channels - 1u);
            var sum = vec3<f32>(0.0);
            for (var row = u.row_taps + 2u * table[i]; row < bottom; row += 2u) {{
                let line = table[row] * u.width;
                let a = table[row + 1u];
                var part = vec3<f32>(0.0);
                for (var tap = j; tap < end; tap += u.columns) {{
                    let at = (line + table[u.inputs + tap]) * u.channels;
                    let b = table[u.weights + tap];
                    var weight = 0.0;
                    if (u.product == 1u) {{
                        weight = bitcast<f32>(b);
                    }} else {{
                        weight = bitcast<f32>(table[u.kernel + a + b]);
                    }}
                    part = fma(vec3<f32>(weight), vec3<f32>(image[at + c], image[at + c1], image[at + c2]), part);
                }}
                if (u.product == 1u) {{
                    part *= bitcast<f32>(a);
                }}
                sum += part;
            }}
            let at = pixel * u.channels;
            for (var k = 0u; k < min(3u, u.channels - c); k++) {{
                out[at + c + k] = sum[k];
                total = fma(sum[k], sum[k], total);
            }}
        }}
    }}
    gather(thread, total);
    if (thread == 0u) {{ sums[group.x] = partial[0]; }}
}}
"
    )
}

/// Copies a window of pictures.
pub const PLACE: &str = "
struct U {
    images: u32, rows: u32, length: u32, unused: u32,
    from_rows: u32, from_pitch: u32, from_y: u32, from_x: u32,
    to_rows: u32, to_pitch: u32, to_y: u32, to_x: u32,
}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> to: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var at = id.x; at < u.images * u.rows * u.length; at += groups.x * 256u) {
        let x = at % u.length;
        let y = at / u.length % u.rows;
        let image = at / (u.length * u.rows);
        to[(image * u.to_rows + u.to_y + y) * u.to_pitch + u.to_x + x]
            = source[(image * u.from_rows + u.from_y + y) * u.from_pitch + u.from_x + x];
    }
}
";

/// Pixel unshuffle, or with `back` pixel shuffle: each value of the result from its place in the source.
/// `rows` × `columns` × `channels` are those of the pictures, not of the cells.
pub const SHUFFLE: &str = "
struct U {
    images: u32, rows: u32, columns: u32, channels: u32,
    cell: u32, back: u32, unused: u32, nothing: u32,
}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> to: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let high = (u.rows + u.cell - 1u) / u.cell;
    let wide = (u.columns + u.cell - 1u) / u.cell;
    let deep = u.cell * u.cell * u.channels;
    let count = select(u.images * high * wide * deep, u.images * u.rows * u.columns * u.channels, u.back == 1u);
    for (var at = id.x; at < count; at += groups.x * 256u) {
        if u.back == 1u {
            let k = at % u.channels;
            let x = at / u.channels % u.columns;
            let y = at / (u.channels * u.columns) % u.rows;
            let image = at / (u.channels * u.columns * u.rows);
            let inner = (y % u.cell * u.cell + x % u.cell) * u.channels + k;
            to[at] = source[((image * high + y / u.cell) * wide + x / u.cell) * deep + inner];
        } else {
            let k = at % u.channels;
            let inner = at % deep / u.channels;
            let x = min(at / deep % wide * u.cell + inner % u.cell, u.columns - 1u);
            let y = min(at / (deep * wide) % high * u.cell + inner / u.cell, u.rows - 1u);
            let image = at / (deep * wide * high);
            to[at] = source[((image * u.rows + y) * u.columns + x) * u.channels + k];
        }
    }
}
";

/// What conjugate gradients know of their step: ‖r‖², ‖p‖² (by the photo ‖s‖², ‖q‖²), the step length, how
/// much of the last direction goes into the next, and 1 once there is nothing left to explain.
pub const STATE: &str = "
struct State { residual: f32, direction: f32, alpha: f32, beta: f32, stopped: f32 }
";

/// From the partial sums of a square to the state: what the solve begins with (0), the step length
/// from ‖G q‖², or by the photo from ⟨q, G q⟩ (1), the next direction from the next ‖r‖² (2). One workgroup.
pub fn step() -> String {
    format!(
        "
struct U {{ count: u32, what: u32, lambda: f32, unused: u32 }}
{STATE}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> state: State;
{TREE}
@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {{
    var sum = 0.0;
    for (var at = thread; at < u.count; at += 256u) {{ sum += sums[at]; }}
    gather(thread, sum);
    if (thread != 0u) {{ return; }}
    sum = partial[0];
    if (u.what == 0u) {{
        state.residual = sum;
        state.direction = sum;
        state.stopped = 0.0;
    }} else if (u.what == 1u) {{
        let along = sum + u.lambda * state.direction;
        if (state.residual > 0.0 && along > 0.0 && state.stopped == 0.0) {{
            state.alpha = state.residual / along;
        }} else {{
            state.alpha = 0.0;
            state.stopped = 1.0;
        }}
    }} else {{
        state.beta = 0.0;
        if (state.residual > 0.0) {{ state.beta = sum / state.residual; }}
        state.direction = sum + state.beta * state.beta * state.direction;
        state.residual = sum;
    }}
}}
"
    )
}

/// A step along q: z += α q, s −= α (G q + λ q); of the squares of the latter a partial sum a workgroup.
pub fn advance() -> String {
    format!(
        "
struct U {{ length: u32, lambda: f32, unused0: u32, unused1: u32 }}
{STATE}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> state: State;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> normal_q: array<f32>;
@group(0) @binding(4) var<storage, read_write> z: array<f32>;
@group(0) @binding(5) var<storage, read_write> s: array<f32>;
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;
{TREE}{SUMMING}    var total = 0.0;
    // What is not a number in q must not reach z once there is nothing left to explain.
    let going = state.stopped != 1.0;
    for (var at = id.x; at < u.length; at += groups.x * 256u) {{
        var value = s[at];
        if (going) {{
            z[at] = fma(state.alpha, q[at], z[at]);
            value = fma(-state.alpha, fma(u.lambda, q[at], normal_q[at]), value);
            s[at] = value;
        }}
        total = fma(value, value, total);
    }}
    gather(thread, total);
    if (thread == 0u) {{ sums[group.x] = partial[0]; }}
}}
"
    )
}

/// The next direction: q = s + β q, G q = G s + β G q; of the squares of the latter, or with `by_photo` of
/// the products of both, a partial sum a workgroup.
pub fn turn() -> String {
    format!(
        "
struct U {{ length: u32, by_photo: u32, unused0: u32, unused1: u32 }}
{STATE}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> state: State;
@group(0) @binding(2) var<storage, read> s: array<f32>;
@group(0) @binding(3) var<storage, read> normal_s: array<f32>;
@group(0) @binding(4) var<storage, read_write> q: array<f32>;
@group(0) @binding(5) var<storage, read_write> normal_q: array<f32>;
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;
{TREE}{SUMMING}    var total = 0.0;
    for (var at = id.x; at < u.length; at += groups.x * 256u) {{
        let direction = fma(state.beta, q[at], s[at]);
        q[at] = direction;
        let value = fma(state.beta, normal_q[at], normal_s[at]);
        normal_q[at] = value;
        total = fma(value, select(value, direction, u.by_photo == 1u), total);
    }}
    gather(thread, total);
    if (thread == 0u) {{ sums[group.x] = partial[0]; }}
}}
"
    )
}

//! Winograd's minimal filtering as shaders (Lavin and Gray, 2016), for layers whose channels come in
//! blocks of 64: the same transforms as the processor's (`cpu::winograd`), F(4 × 4, 3 × 3), with a
//! quarter of the direct sum's multiplications.
//!
//! Tiles of 4 × 4 outputs are transformed (36 points of 6 × 6 inputs), multiplied over channels, one
//! matrix product a point, and transformed back. What is in between goes through the device's memory,
//! so a picture is done in parts of at most [`PART`] tiles.

use super::device::{Number, Work};
use super::shaders::ending;
use super::{GpuEngine, GpuTensor, THREADS};
use crate::Result;
use crate::engine::{Engine, Layer, Shape};
use Number::U;

/// Points at which polynomials are multiplied: 6 × 6.
const POINTS: usize = 36;
/// Channels come in blocks of so many.
const BLOCK: usize = 64;
/// Tiles of a workgroup's product.
const ROWS: usize = 128;
/// Tiles that are on their way at a time, those of a picture of 256 × 256: their transforms take 38 MB
/// each of inputs and outputs of 64 channels. With half as many an H100 is a tenth slower.
pub(super) const PART: usize = 4096;
/// Partial sums of a weight gradient at most: with 36 points they are about 8 workgroups for each of a
/// large card's 132 multiprocessors, as many as it runs at a time. And the tiles of one of them at least.
const MAX_SPLITS: usize = 29;
const MIN_TILES: usize = 64;

/// The pictures of a tensor cut into tiles of 4 × 4.
struct Grid {
    h: usize,
    w: usize,
    rows: usize,
    columns: usize,
    tiles: usize,
}

impl Grid {
    fn new(shape: Shape) -> Self {
        let (rows, columns) = (shape.h.div_ceil(4), shape.w.div_ceil(4));
        Grid { h: shape.h, w: shape.w, rows, columns, tiles: shape.n * rows * columns }
    }

    /// Parts of about the same size: (first tile, tiles).
    fn parts(&self, part: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (tiles, each) = (self.tiles, self.tiles.div_ceil(self.tiles.div_ceil(part).max(1)).max(1));
        (0..tiles).step_by(each).map(move |first| (first, each.min(tiles - first)))
    }

    fn numbers(&self, channels: usize, (first, count): (usize, usize)) -> [Number; 7] {
        [U(self.h), U(self.w), U(self.rows), U(self.columns), U(channels), U(first), U(count)]
    }
}

/// Workgroups for a thread for each tile and pair of channels.
fn pairs(tiles: usize, channels: usize) -> usize {
    (tiles * channels / 2).div_ceil(THREADS as usize)
}

/// How a value ends: see [`GpuEngine::convolve`].
pub(super) struct Ending<'a> {
    pub bias: Option<&'a GpuTensor>,
    pub code: usize,
    pub mask: Option<&'a GpuTensor>,
    pub residual: Option<&'a GpuTensor>,
}

/// Whether a layer is done this way.
pub(super) fn fits(layer: Layer) -> bool {
    layer.input.is_multiple_of(BLOCK) && layer.output.is_multiple_of(BLOCK)
}

impl GpuEngine {
    /// Tiles of a part, of so many channels.
    fn tiles_of_part(&self, channels: usize) -> usize {
        (self.part * BLOCK / channels).min(self.largest() / (POINTS * channels)).max(1)
    }

    /// What `convolve` does.
    pub(super) fn convolve_by_points(
        &self,
        layer: Layer,
        transposed: bool,
        terms: &[(&GpuTensor, &GpuTensor)],
        ending: &Ending<'_>,
        out: &GpuTensor,
    ) -> Result<()> {
        let (input, output) = if transposed { (layer.output, layer.input) } else { (layer.input, layer.output) };
        let grid = Grid::new(out.shape);
        let filters = terms.iter().map(|_| self.device.take(POINTS * input * output)).collect::<Result<Vec<_>>>()?;
        for part in grid.parts(self.tiles_of_part(input.max(output))) {
            let (first, count) = part;
            let [v, m] = [input, output].map(|channels| self.device.take(POINTS * count * channels));
            let (v, m) = (v?, m?);
            for (index, ((x, params), filters)) in terms.iter().zip(&filters).enumerate() {
                // Filters do not change from part to part.
                let filtering = if first == 0 { (input * output).div_ceil(THREADS as usize) } else { 0 };
                let weights =
                    [U(filtering), U(layer.weight), U(layer.input), U(layer.output), U(usize::from(transposed))];
                let numbers = [&grid.numbers(input, part)[..], &weights].concat();
                let groups = [filtering + pairs(count, input), 1, 1];
                self.device.run(Work::Points, &numbers, &[&x.block, &params.block, &v, filters], groups)?;
                let numbers = [U(count), U(input), U(output), U(usize::from(index > 0))];
                let groups = [count.div_ceil(ROWS), POINTS, output / BLOCK];
                self.device.run(Work::Product, &numbers, &[&v, filters, &m], groups)?;
            }
            let ends = [
                U(layer.bias),
                U(usize::from(ending.bias.is_some())),
                U(ending.code),
                U(usize::from(ending.residual.is_some())),
            ];
            let numbers = [&grid.numbers(output, part)[..], &ends].concat();
            let tensors = [
                &m,
                ending.bias.map_or(&self.nothing, |tensor| &tensor.block),
                ending.mask.map_or(&self.nothing, |tensor| &tensor.block),
                ending.residual.map_or(&self.nothing, |tensor| &tensor.block),
                &out.block,
            ];
            self.device.run(Work::Outputs, &numbers, &tensors, [pairs(count, output), 1, 1])?;
        }
        Ok(())
    }

    /// Adds the weight gradient to `grad`, and with `bias_of` the sums of that term's δ.
    pub(super) fn weight_grad_by_points(
        &self,
        layer: Layer,
        terms: &[(&GpuTensor, &GpuTensor)],
        bias_of: Option<usize>,
        grad: &GpuTensor,
    ) -> Result<()> {
        let (input, output) = (layer.input, layer.output);
        let part = self.tiles_of_part(input.max(output));
        let most = terms.iter().flat_map(|(a, _)| Grid::new(a.shape).parts(part)).map(|(_, count)| count).max();
        let most = most.unwrap_or(0);
        let each = most.div_ceil(MAX_SPLITS).next_multiple_of(16).max(MIN_TILES);
        // Even, for who adds them up.
        let splits = most.div_ceil(each).next_multiple_of(2);
        let sums = self.device.take(splits * (POINTS * input + 1) * output)?;
        let mut add = false;
        for (index, (a, delta)) in terms.iter().enumerate() {
            assert!(a.shape.c == input && delta.shape == a.shape.with_channels(output));
            let grid = Grid::new(a.shape);
            for part in grid.parts(part) {
                let (_, count) = part;
                let [v, d] = [input, output].map(|channels| self.device.take(POINTS * count * channels));
                let (v, d) = (v?, d?);
                let inputs = pairs(count, input);
                let numbers = [&grid.numbers(input, part)[..], &[U(inputs), U(output)]].concat();
                let groups = [inputs + pairs(count, output), 1, 1];
                self.device.run(Work::PointsOfBoth, &numbers, &[&a.block, &delta.block, &v, &d], groups)?;
                let bias = usize::from(bias_of == Some(index));
                let numbers = [count, input, output, each, splits, usize::from(add), bias, output / BLOCK].map(U);
                let groups = [splits, POINTS, (input / BLOCK) * (output / BLOCK)];
                self.device.run(Work::PointSums, &numbers, &[&v, &d, &sums], groups)?;
                add = true;
            }
        }
        let bias = if bias_of.is_some() { output / 32 } else { 0 };
        let numbers = [splits, input, output, layer.weight, layer.bias].map(U);
        let groups = [input * output / 32 + bias, 1, 1];
        self.device.run(Work::PointGradient, &numbers, &[&sums, &grad.block], groups)
    }
}

/// The numbers of tiles that [`Grid::numbers`] gives.
const GRID: &str = "height: u32, width: u32, rows: u32, columns: u32, channels: u32, first: u32, count: u32,";

/// `name`(d₀, …) → […], lines of WGSL.
fn transform(name: &str, value: &str, from: usize, body: &str, to: &[&str]) -> String {
    let arguments: Vec<String> = (0..from).map(|i| format!("d{i}: {value}")).collect();
    format!(
        "fn {name}({}) -> array<{value}, {}> {{\n{body}    return array<{value}, {}>({});\n}}\n",
        arguments.join(", "),
        to.len(),
        to.len(),
        to.join(", ")
    )
}

/// Bᵀ d: six values at the six points.
fn at_points() -> String {
    let body = "    let even = d4 - 4.0 * d2;
    let odd = d3 - 4.0 * d1;
    let even2 = d4 - d2;
    let odd2 = 2.0 * (d3 - d1);
";
    let to = [
        "4.0 * d0 - 5.0 * d2 + d4",
        "even + odd",
        "even - odd",
        "even2 + odd2",
        "even2 - odd2",
        "4.0 * d1 - 5.0 * d3 + d5",
    ];
    transform("at_points", "vec2<f32>", 6, body, &to)
}

/// G g: three filter values at the six points.
fn filter_at_points() -> String {
    let body = "    let ends = (d0 + d2) * (-1.0 / 6.0);
    let middle = d1 * (-1.0 / 6.0);
    let ends2 = (d0 + 4.0 * d2) * (1.0 / 24.0);
    let middle2 = d1 * (1.0 / 12.0);
";
    let to = ["0.25 * d0", "ends + middle", "ends - middle", "ends2 + middle2", "ends2 - middle2", "d2"];
    transform("filter_at_points", "f32", 3, body, &to)
}

/// Four values of δ at the six points, without the factors that [`gradient`] puts in.
fn delta_at_points() -> String {
    let body = "    let even = d0 + d2;
    let odd = d1 + d3;
    let even2 = d0 + 4.0 * d2;
    let odd2 = 2.0 * d1 + 8.0 * d3;
";
    let to = ["d0", "even + odd", "even - odd", "even2 + odd2", "even2 - odd2", "d3"];
    transform("delta_at_points", "vec2<f32>", 4, body, &to)
}

/// Aᵀ m for four outputs, or three.
fn outputs(value: &str, count: usize) -> String {
    let body = "    let even = d1 + d2;
    let odd = d1 - d2;
    let even2 = d3 + d4;
    let odd2 = d3 - d4;
";
    let four = ["d0 + even + even2", "odd + 2.0 * odd2", "even + 4.0 * even2", "odd + 8.0 * odd2 + d5"];
    let three = ["d0 + even + even2", "odd + 2.0 * odd2", "even + 4.0 * even2 + d5"];
    transform("outputs", value, 6, body, if count == 4 { &four } else { &three })
}

/// The two-dimensional transform `name` of `from` × `from` values, row `y` and column `x` read by `read`,
/// each of the `to` × `to` results written by `write`(y, x, value).
fn two_dimensional(
    name: &str,
    from: usize,
    to: usize,
    read: impl Fn(usize, usize) -> String,
    write: impl Fn(usize, usize, &str) -> String,
) -> String {
    let mut text = String::new();
    for x in 0..from {
        let column: Vec<String> = (0..from).map(|y| read(y, x)).collect();
        text += &format!("    let c{x} = {name}({});\n", column.join(", "));
    }
    for y in 0..to {
        let row: Vec<String> = (0..from).map(|x| format!("c{x}[{y}]")).collect();
        text += &format!("    let r{y} = {name}({});\n", row.join(", "));
        for x in 0..to {
            text += &write(y, x, &format!("r{y}[{x}]"));
        }
    }
    text
}

/// Where a thread for a tile and pair of channels works, after the names of its numbers.
fn place(channels: &str) -> String {
    format!(
        "    let half = {channels} / 2u;
    let pair = at % half;
    let t = at / half;
    if (t >= u.count) {{ return; }}
    let tile = u.first + t;
    let image = tile / (u.rows * u.columns);
    let top = tile / u.columns % u.rows * 4u;
    let left = tile % u.columns * 4u;
"
    )
}

/// `pixel_of_NAME`: a pair of channels of a pixel; 0 outside of the picture, where an unsigned number
/// below zero is a very large one. Without branches, so that all of a tile are on their way together.
fn pixel(name: &str, channels: &str) -> String {
    format!(
        "fn pixel_of_{name}(image: u32, y: u32, x: u32, pair: u32) -> vec2<f32> {{
    let inside = (y < u.height) & (x < u.width);
    let at = ((image * u.height + y) * u.width + x) * ({channels} / 2u) + pair;
    return select(vec2<f32>(0.0), {name}[select(0u, at, inside)], inside);
}}
"
    )
}

/// `inputs`: v[point][tile][channel] of `input`.
fn inputs() -> String {
    let body = two_dimensional(
        "at_points",
        6,
        6,
        |y, x| format!("pixel_of_input(image, top + {y}u - 1u, left + {x}u - 1u, pair)"),
        |y, x, value| format!("    v[({}u * u.count + t) * half + pair] = {value};\n", 6 * y + x),
    );
    format!("{}{}fn inputs(at: u32) {{\n{}{body}}}\n", at_points(), pixel("input", "u.channels"), place("u.channels"))
}

/// Inputs at the points, and, by the first workgroups, the filters: filters[point][from][to];
/// `transposed` is the layer's adjoint, channels exchanged and taps turned by 180°.
pub(super) fn points() -> String {
    let body = two_dimensional(
        "filter_at_points",
        3,
        6,
        |y, x| format!("params[base + select({0}u, 8u - {0}u, u.transposed == 1u)]", 3 * y + x),
        |y, x, value| format!("    filters[{}u * from_count * to_count + at] = {value};\n", 6 * y + x),
    );
    format!(
        "
struct U {{
    {GRID}
    filtering: u32, weight: u32, input: u32, output: u32, transposed: u32,
}}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> input: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> params: array<f32>;
@group(0) @binding(3) var<storage, read_write> v: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> filters: array<f32>;

{}{}
fn filters_at(at: u32) {{
    let from_count = select(u.input, u.output, u.transposed == 1u);
    let to_count = select(u.output, u.input, u.transposed == 1u);
    if (at >= from_count * to_count) {{ return; }}
    let f = at / to_count;
    let t = at % to_count;
    let base = u.weight + 9u * select(t * u.input + f, f * u.input + t, u.transposed == 1u);
{body}}}

@compute @workgroup_size({THREADS})
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {{
    if (group.x < u.filtering) {{
        filters_at(group.x * {THREADS}u + thread);
    }} else {{
        inputs((group.x - u.filtering) * {THREADS}u + thread);
    }}
}}
",
        inputs(),
        filter_at_points()
    )
}

/// For a weight gradient: the inputs x at the points, and d[point][tile][channel] of δ.
pub(super) fn points_of_both() -> String {
    let body = two_dimensional(
        "delta_at_points",
        4,
        6,
        |y, x| format!("pixel_of_delta(image, top + {y}u, left + {x}u, pair)"),
        |y, x, value| format!("    d[({}u * u.count + t) * half + pair] = {value};\n", 6 * y + x),
    );
    format!(
        "
struct U {{
    {GRID}
    inputs: u32, output: u32, unused0: u32, unused1: u32, unused2: u32,
}}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> input: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> delta: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> v: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> d: array<vec2<f32>>;

{}{}{}
fn deltas(at: u32) {{
{}{body}}}

@compute @workgroup_size({THREADS})
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {{
    if (group.x < u.inputs) {{
        inputs(group.x * {THREADS}u + thread);
    }} else {{
        deltas((group.x - u.inputs) * {THREADS}u + thread);
    }}
}}
",
        inputs(),
        delta_at_points(),
        pixel("delta", "u.output"),
        place("u.output")
    )
}

/// m[point][tile][to] = Σ v[point][tile][from] · filters[point][from][to], or added to what is there.
/// A workgroup makes 128 tiles × 64 channels, each thread 8 × 8 of them: tiles 16 apart, channels in
/// two vectors 32 apart, so that neighbouring threads read neighbouring memory. 16 channels of the
/// inputs at a time go through the workgroup's memory. Its arrays are nested so that the threads'
/// indices stay in bounds by themselves and the others are constants: each check would be an
/// instruction beside the multiply-adds.
pub(super) fn product() -> String {
    let (mut sums, mut lines, mut ends) = (String::new(), String::new(), String::new());
    for i in 0..8 {
        sums += &format!("    var s{i}_0 = vec4<f32>(0.0);\n    var s{i}_1 = vec4<f32>(0.0);\n");
        lines += &format!("            let a{i} = a[{i}][row][k];\n");
        ends += &format!("    finish(group, row + {}u, column, s{i}_0, s{i}_1);\n", 16 * i);
    }
    for (kk, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
        for half in 0..2 {
            lines += &format!("            let b{kk}_{half} = b[k][{kk}][{half}][column];\n");
        }
        for i in 0..8 {
            for half in 0..2 {
                lines +=
                    &format!("            s{i}_{half} = fma(vec4<f32>(a{i}.{part}), b{kk}_{half}, s{i}_{half});\n");
            }
        }
    }
    // All reads of a turn before the first of them is stored, so that they are on their way together.
    let (mut reads, mut stores) = (String::new(), String::new());
    for j in 0..4 {
        reads += &format!("        let v{j} = value(group, thread / 4u + {}u, k0 + thread % 4u);\n", 32 * j);
        stores += &format!("        a[{}u + thread / 64u][thread / 4u % 16u][thread % 4u] = v{j};\n", 2 * j);
    }
    for j in 0..2 {
        reads += &format!(
            "        let f{j} = filters[(group.y * u.depth + 4u * k0 + thread / 16u + {}u) * (u.to / 4u) \
             + 16u * group.z + thread % 16u];\n",
            8 * j
        );
        stores += &format!(
            "        b[{}u + thread / 64u][thread / 16u % 4u][thread / 8u % 2u][thread % 8u] = f{j};\n",
            2 * j
        );
    }
    format!(
        "
struct U {{ count: u32, depth: u32, to: u32, add: u32 }}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> filters: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> m: array<vec4<f32>>;

// One vector more than there are, so that rows begin in different banks.
var<workgroup> a: array<array<array<vec4<f32>, 5>, 16>, 8>;
var<workgroup> b: array<array<array<array<vec4<f32>, 8>, 2>, 4>, 4>;

fn value(group: vec3<u32>, row: u32, k: u32) -> vec4<f32> {{
    // Beyond the last tile nothing is written.
    let t = min(group.x * {ROWS}u + row, u.count - 1u);
    return v[(group.y * u.count + t) * (u.depth / 4u) + k];
}}

fn finish(group: vec3<u32>, row: u32, column: u32, s0: vec4<f32>, s1: vec4<f32>) {{
    let t = group.x * {ROWS}u + row;
    if (t >= u.count) {{ return; }}
    let at = (group.y * u.count + t) * (u.to / 4u) + 16u * group.z + column;
    if (u.add == 1u) {{
        m[at] += s0;
        m[at + 8u] += s1;
    }} else {{
        m[at] = s0;
        m[at + 8u] = s1;
    }}
}}

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {{
    let row = thread / 8u;
    let column = thread % 8u;
{sums}
    for (var k0 = 0u; k0 < u.depth / 4u; k0 += 4u) {{
{reads}{stores}
        workgroupBarrier();
        for (var k = 0u; k < 4u; k++) {{
{lines}
        }}
        workgroupBarrier();
    }}
{ends}
}}
"
    )
}

/// gate(Aᵀ m A + bias) + residual.
pub(super) fn results() -> String {
    let (mut kept, mut masks) = (String::new(), String::new());
    for (y, x) in (0..16).map(|i| (i / 4, i % 4)) {
        kept += &format!("    var kept{y}{x} = vec2<f32>(0.0);\n");
        masks += &format!("        kept{y}{x} = mask_at(image, top + {y}u, left + {x}u, pair);\n");
    }
    let body = two_dimensional(
        "outputs",
        6,
        4,
        |y, x| format!("m[({}u * u.count + t) * half + pair]", 6 * y + x),
        |y, x, value| format!("    finish(image, top + {y}u, left + {x}u, pair, {value} + b, kept{y}{x});\n"),
    );
    format!(
        "
struct U {{
    {GRID}
    bias: u32, has_bias: u32, gate: u32, residual: u32, unused: u32,
}}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> m: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> mask: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> residual: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec2<f32>>;

{}
fn mask_at(image: u32, y: u32, x: u32, pair: u32) -> vec2<f32> {{
    // Beyond the picture nothing is written.
    let pixel = (image * u.height + min(y, u.height - 1u)) * u.width + min(x, u.width - 1u);
    return mask[pixel * (u.channels / 2u) + pair];
}}

fn finish(image: u32, y: u32, x: u32, pair: u32, sum: vec2<f32>, kept: vec2<f32>) {{
    if ((y >= u.height) | (x >= u.width)) {{ return; }}
    let at = ((image * u.height + y) * u.width + x) * (u.channels / 2u) + pair;
    var value = sum;
{}    out[at] = value;
}}

@compute @workgroup_size({THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let at = id.x;
{}    var b = vec2<f32>(0.0);
    if (u.has_bias == 1u) {{ b = vec2<f32>(bias[u.bias + 2u * pair], bias[u.bias + 2u * pair + 1u]); }}
{kept}    if (u.gate == 2u) {{
{masks}    }}
{body}}}
",
        outputs("vec2<f32>", 4),
        ending("vec2<f32>", "kept"),
        place("u.channels")
    )
}

/// sums[split][point][input][output] = Σ v[point][tile][input] · d[point][tile][output] over the split's
/// tiles, or added to what is there; behind all of these sums[split][output], the sums of δ, which are
/// what d holds at the point 7, (1, 1). A workgroup makes 64 × 64 channels, each thread 8 × 8 of them;
/// 16 tiles at a time go through its memory.
pub(super) fn point_sums() -> String {
    let (mut sums, mut lines, mut ends) = (String::new(), String::new(), String::new());
    for h in 0..2 {
        for k in 0..4 {
            let i = 4 * h + k;
            sums += &format!("    var s{i}_0 = vec4<f32>(0.0);\n    var s{i}_1 = vec4<f32>(0.0);\n");
            ends += &format!("    finish(group, row * 4u + {}u, column, s{i}_0, s{i}_1);\n", 32 * h + k);
        }
    }
    for kk in 0..4 {
        for half in 0..2 {
            lines += &format!("            let a{kk}_{half} = a[k][{kk}][{half}][row];\n");
            lines += &format!("            let b{kk}_{half} = b[k][{kk}][{half}][column];\n");
        }
        for h in 0..2 {
            for (k, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
                let i = 4 * h + k;
                for half in 0..2 {
                    lines += &format!(
                        "            s{i}_{half} = fma(vec4<f32>(a{kk}_{h}.{part}), b{kk}_{half}, s{i}_{half});\n"
                    );
                }
            }
        }
    }
    // All reads of a turn before the first of them is stored, so that they are on their way together.
    let (mut reads, mut stores, mut bias) = (String::new(), String::new(), String::new());
    for j in 0..4 {
        let place = format!("group, t0 + thread / 16u + {}u, end, thread % 16u", 4 * j);
        reads += &format!("        let v{j} = input_at({place});\n        let d{j} = delta_at({place});\n");
        stores += &format!("        a[{j}][thread / 16u][thread / 8u % 2u][thread % 8u] = v{j};\n");
        stores += &format!("        b[{j}][thread / 16u][thread / 8u % 2u][thread % 8u] = d{j};\n");
        for kk in 0..4 {
            bias += &format!("            total += b[{j}][{kk}][thread / 8u % 2u][thread % 8u];\n");
        }
    }
    format!(
        "
struct U {{
    count: u32, input: u32, output: u32, each: u32,
    splits: u32, add: u32, bias: u32, blocks: u32,
}}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> d: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>;

var<workgroup> a: array<array<array<array<vec4<f32>, 8>, 2>, 4>, 4>;
var<workgroup> b: array<array<array<array<vec4<f32>, 8>, 2>, 4>, 4>;

fn input_at(group: vec3<u32>, t: u32, end: u32, quad: u32) -> vec4<f32> {{
    let at = (group.y * u.count + min(t, end - 1u)) * (u.input / 4u) + 16u * (group.z / u.blocks) + quad;
    return select(vec4<f32>(0.0), v[at], t < end);
}}

fn delta_at(group: vec3<u32>, t: u32, end: u32, quad: u32) -> vec4<f32> {{
    let at = (group.y * u.count + min(t, end - 1u)) * (u.output / 4u) + 16u * (group.z % u.blocks) + quad;
    return select(vec4<f32>(0.0), d[at], t < end);
}}

fn put(at: u32, value: vec4<f32>) {{
    if (u.add == 1u) {{
        sums[at] += value;
    }} else {{
        sums[at] = value;
    }}
}}

fn finish(group: vec3<u32>, row: u32, column: u32, s0: vec4<f32>, s1: vec4<f32>) {{
    let i = 64u * (group.z / u.blocks) + row;
    let at = ((group.x * {POINTS}u + group.y) * u.input + i) * (u.output / 4u) + 16u * (group.z % u.blocks) + column;
    put(at, s0);
    put(at + 8u, s1);
}}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {{
    let row = thread / 8u;
    let column = thread % 8u;
{sums}
    var total = vec4<f32>(0.0);
    let end = min((group.x + 1u) * u.each, u.count);
    let start = group.x * u.each;
    for (var t0 = start; t0 < end; t0 += 16u) {{
{reads}{stores}
        workgroupBarrier();
        if (u.bias == 1u && group.y == 7u) {{
{bias}
        }}
        for (var k = 0u; k < 4u; k++) {{
{lines}
        }}
        workgroupBarrier();
    }}
{ends}
    if (group.y == 7u && group.z < u.blocks && thread < 16u) {{
        put((u.splits * {POINTS}u * u.input + group.x) * (u.output / 4u) + 16u * group.z + thread, total);
    }}
}}
"
    )
}

/// Adds those sums, in the order of the splits, transforms them to weights, and adds them to a flat
/// gradient; the last workgroups do the bias. Each workgroup has 32 pairs of channels, a row of points
/// for each thread.
pub(super) fn point_gradient() -> String {
    let scale = ["0.25", "(-1.0 / 6.0)", "(-1.0 / 6.0)", "(1.0 / 24.0)", "(1.0 / 24.0)", "1.0"];
    let (mut begin, mut reads, mut adds, mut stores, mut columns, mut writes) =
        (String::new(), String::new(), String::new(), String::new(), String::new(), String::new());
    for (x, scale) in scale.into_iter().enumerate() {
        begin += &format!("    var s{x} = 0.0;\n");
        reads += &format!("            let a{x} = sums[base + {x}u * count];\n");
        reads += &format!("            let b{x} = sums[next + {x}u * count];\n");
        adds += &format!("            s{x} = s{x} + a{x} + b{x};\n");
        stores += &format!("        points[row][{x}][lane] = s{x} * factor * {scale};\n");
        let column: Vec<String> = (0..6).map(|y| format!("points[{y}][{x}][lane]")).collect();
        columns += &format!("            let c{x} = outputs({});\n", column.join(", "));
    }
    for y in 0..3 {
        let row: Vec<String> = (0..6).map(|x| format!("c{x}[{y}]")).collect();
        writes += &format!("            let r{y} = outputs({});\n", row.join(", "));
        for x in 0..3 {
            writes += &format!("            grad[at + {}u] += r{y}[{x}];\n", 3 * y + x);
        }
    }
    format!(
        "
struct U {{ splits: u32, input: u32, output: u32, weight: u32, bias: u32, unused0: u32, unused1: u32, unused2: u32 }}
@group(0) @binding(0) var<uniform> u: U;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> grad: array<f32>;

var<workgroup> points: array<array<array<f32, 32>, 6>, 6>;

{}
@compute @workgroup_size(192)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {{
    let lane = thread % 32u;
    let row = thread / 32u;
    let count = u.input * u.output;
    let index = group.x * 32u + lane;
    let is_bias = group.x * 32u >= count;
{begin}
    if (is_bias) {{
        for (var split = row; split < u.splits; split += 6u) {{
            s0 += sums[{POINTS}u * u.splits * count + split * u.output + index - count];
        }}
        points[row][0][lane] = s0;
    }} else {{
        // Two at a time, which is why their number is even: they are long on their way.
        for (var split = 0u; split < u.splits; split += 2u) {{
            let base = (split * {POINTS}u + 6u * row) * count + index;
            let next = base + {POINTS}u * count;
{reads}{adds}
        }}
        var factor = 1.0;
        if (row == 0u) {{ factor = 0.25; }}
        if (row == 1u || row == 2u) {{ factor = -1.0 / 6.0; }}
        if (row == 3u || row == 4u) {{ factor = 1.0 / 24.0; }}
{stores}
    }}
    workgroupBarrier();
    if (row == 0u) {{
        if (is_bias) {{
            var sum = 0.0;
            for (var k = 0u; k < 6u; k++) {{ sum += points[k][0][lane]; }}
            grad[u.bias + index - count] += sum;
        }} else {{
            let at = u.weight + (index % u.output * u.input + index / u.output) * 9u;
{columns}{writes}
        }}
    }}
}}
",
        outputs("f32", 3)
    )
}

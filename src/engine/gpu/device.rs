//! Graphics processors: finding one, its memory, and work that is handed to it in batches.

use super::{shaders, winograd};
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The numbers of a shader lie so far apart, as the strictest device wants it.
const SLOT: usize = 256;
/// So many pieces of work at most are recorded before the device is given them.
const BATCH: usize = 128;
/// So many after it had nothing to do, and then twice as many each time: it begins soon, and is given
/// work seldom.
const FIRST_BATCH: usize = 8;

/// The largest buffer that is kept to read through, in bytes.
const MOST_KEPT: u64 = 1 << 26;

/// What kind of adapter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A graphics card of its own.
    Discrete,
    /// Part of the processor.
    Integrated,
    /// Of a virtual machine, or unknown.
    Other,
    /// A program that imitates one: for tests.
    Software,
}

/// A graphics processor that could be used.
pub struct Adapter {
    adapter: wgpu::Adapter,
    /// Its name.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The driver's name and version.
    pub driver: String,
    /// The largest tensor it takes, in bytes.
    pub largest: u64,
}

/// Keeps Mesa's Vulkan from asking a desktop that is not there which device it prefers: it would print
/// "error: XDG_RUNTIME_DIR is invalid or not set" among the lines of the program. For the beginning of a
/// program: does nothing where other threads run already.
pub fn without_desktop() {
    #[cfg(target_os = "linux")]
    {
        const LEAVE_OUT: &str = "NODEVICE_SELECT";
        let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let alone = || std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
        if unset("XDG_RUNTIME_DIR") && unset(LEAVE_OUT) && alone() {
            // SAFETY: the environment must not change while another thread may read it, and this is the
            // only one.
            unsafe { std::env::set_var(LEAVE_OUT, "1") };
        }
    }
}

/// Those there are, in the order of the system; none where there is no driver.
pub fn adapters() -> Vec<Adapter> {
    let mut description = wgpu::InstanceDescriptor::new_without_display_handle();
    description.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    description.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(description);
    let found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let one = |adapter: wgpu::Adapter| {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        Adapter {
            backend: match info.backend {
                wgpu::Backend::Vulkan => "vulkan",
                wgpu::Backend::Metal => "metal",
                wgpu::Backend::Dx12 => "dx12",
                _ => "other",
            },
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
                wgpu::DeviceType::IntegratedGpu => Kind::Integrated,
                wgpu::DeviceType::Cpu => Kind::Software,
                _ => Kind::Other,
            },
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            largest: largest(&limits),
            name: info.name,
            adapter,
        }
    };
    found.into_iter().map(one).collect()
}

fn largest(limits: &wgpu::Limits) -> u64 {
    // Places are counted in 32 bits.
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(u64::from(u32::MAX)) / 4 * 4
}

/// A piece of work for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    Pack,
    Wide,
    WideOdd,
    Narrow,
    Points,
    Product,
    Outputs,
    PointsOfBoth,
    PointSums,
    PointGradient,
    WeightSums,
    FewSums,
    WeightGradient,
    BiasSums,
    BiasGradient,
    L1,
    Dot,
    Axpy,
    Scale,
    Adam,
    Map,
    Place,
    Shuffle,
    Step,
    Advance,
    Turn,
}

impl Work {
    const ALL: [Work; 26] = [
        Work::Pack,
        Work::Wide,
        Work::WideOdd,
        Work::Narrow,
        Work::Points,
        Work::Product,
        Work::Outputs,
        Work::PointsOfBoth,
        Work::PointSums,
        Work::PointGradient,
        Work::WeightSums,
        Work::FewSums,
        Work::WeightGradient,
        Work::BiasSums,
        Work::BiasGradient,
        Work::L1,
        Work::Dot,
        Work::Axpy,
        Work::Scale,
        Work::Adam,
        Work::Map,
        Work::Place,
        Work::Shuffle,
        Work::Step,
        Work::Advance,
        Work::Turn,
    ];

    /// The shader, and of each tensor that it binds whether it writes there.
    fn shader(self) -> (String, &'static [bool]) {
        let convolution = &[false, false, false, false, false, true][..];
        match self {
            Work::Pack => (shaders::PACK.to_owned(), &[false, true]),
            Work::Wide => (shaders::convolution(true), convolution),
            Work::WideOdd => (shaders::convolution(false), convolution),
            Work::Narrow => (shaders::narrow(), convolution),
            Work::Points => (winograd::points(), &[false, false, true, true]),
            Work::Product => (winograd::product(), &[false, false, true]),
            Work::Outputs => (winograd::results(), &[false, false, false, false, true]),
            Work::PointsOfBoth => (winograd::points_of_both(), &[false, false, true, true]),
            Work::PointSums => (winograd::point_sums(), &[false, false, true]),
            Work::PointGradient => (winograd::point_gradient(), &[false, true]),
            Work::WeightSums => (shaders::WEIGHT_SUMS.to_owned(), &[false, false, true]),
            Work::FewSums => (shaders::few_sums(), &[false, false, true]),
            Work::WeightGradient => (shaders::WEIGHT_GRADIENT.to_owned(), &[false, true]),
            Work::BiasSums => (shaders::BIAS_SUMS.to_owned(), &[false, true]),
            Work::BiasGradient => (shaders::bias_gradient(), &[false, true]),
            Work::L1 => (shaders::l1(), &[false, false, true, true]),
            Work::Dot => (shaders::dot(), &[false, false, true]),
            Work::Axpy => (shaders::AXPY.to_owned(), &[false, true]),
            Work::Scale => (shaders::SCALE.to_owned(), &[true]),
            Work::Adam => (shaders::ADAM.to_owned(), &[false, true, true, true]),
            Work::Map => (shaders::map(), &[false, false, true, true]),
            Work::Place => (shaders::PLACE.to_owned(), &[false, true]),
            Work::Shuffle => (shaders::SHUFFLE.to_owned(), &[false, true]),
            Work::Step => (shaders::step(), &[false, true]),
            Work::Advance => (shaders::advance(), &[false, false, false, true, true, true]),
            Work::Turn => (shaders::turn(), &[false, false, false, true, true, true]),
        }
    }
}

/// A number of a shader.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    U(usize),
    F(f64),
}

/// What is recorded and not yet handed over.
struct Recorded {
    /// Of the encoder below; copies are recorded outside of it.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    numbers: Vec<u8>,
    count: usize,
    /// How many pieces make a batch.
    batch: usize,
}

/// A device at work.
pub(super) struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipelines: HashMap<Work, wgpu::ComputePipeline>,
    numbers: wgpu::Buffer,
    recorded: Mutex<Recorded>,
    /// What was last read through, for the next that is not larger: new memory that the processor sees takes
    /// longer to come than most of what is read.
    staging: Mutex<Option<wgpu::Buffer>>,
    /// The first thing that went wrong outside of any call.
    failure: Arc<Mutex<Option<String>>>,
    pub memory: Arc<Pool>,
    pub largest: u64,
}

/// Buffers that are free, by size.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<wgpu::Buffer>>);

/// A buffer that goes back to the pool when dropped. Commands recorded before keep it in order: what
/// uses it next is recorded after them.
pub(super) struct Block {
    buffer: Option<wgpu::Buffer>,
    pool: Arc<Pool>,
}

impl Block {
    pub fn buffer(&self) -> &wgpu::Buffer {
        self.buffer.as_ref().expect("there until dropped")
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            lock(&self.pool.0).push(buffer);
        }
    }
}

/// Nothing panics while these are held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(what: impl std::fmt::Display) -> Error {
    let text = what.to_string();
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ");
    Error::Device(format!("the GPU failed: {line}; --device cpu does without it"))
}

impl Device {
    /// Opens an adapter with all that it allows.
    pub fn open(adapter: &Adapter) -> Result<Self> {
        let limits = adapter.adapter.limits();
        let description = wgpu::DeviceDescriptor {
            label: Some("mzsr"),
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.adapter.request_device(&description)).map_err(failed)?;
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let note = |failure: &Arc<Mutex<Option<String>>>| {
            let failure = Arc::clone(failure);
            move |what: String| {
                lock(&failure).get_or_insert(what);
            }
        };
        let uncaptured = note(&failure);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| uncaptured(error.to_string())));
        let lost = note(&failure);
        device.set_device_lost_callback(move |reason, what| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost(format!("the device was lost: {what}"));
            }
        });
        let pipelines = Work::ALL.into_par_iter().map(|work| (work, pipeline(&device, work))).collect();
        let numbers = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: (SLOT * BATCH) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let made = Device {
            device,
            queue,
            pipelines,
            numbers,
            recorded: Mutex::new(Recorded {
                pass: None,
                encoder: None,
                numbers: Vec::new(),
                count: 0,
                batch: FIRST_BATCH,
            }),
            staging: Mutex::default(),
            failure,
            memory: Arc::default(),
            largest: largest(&limits),
        };
        made.check()?;
        Ok(made)
    }

    /// What went wrong since the device was opened, if anything did.
    fn check(&self) -> Result<()> {
        match &*lock(&self.failure) {
            None => Ok(()),
            Some(what) => Err(failed(what)),
        }
    }

    /// Room for so many values, which hold anything.
    pub fn take(&self, values: usize) -> Result<Block> {
        let size = (4 * values.max(1) as u64).next_multiple_of(256);
        if size > self.largest {
            return Err(Error::Memory(format!(
                "a tensor of {} MiB is more than the GPU takes at once ({} MiB)",
                size >> 20,
                self.largest >> 20
            )));
        }
        let fits = |buffer: &wgpu::Buffer| buffer.size() >= size && buffer.size() <= size + size / 4;
        let mut free = lock(&self.memory.0);
        if let Some(index) = free.iter().rposition(fits) {
            let buffer = free.remove(index);
            return Ok(Block { buffer: Some(buffer), pool: Arc::clone(&self.memory) });
        }
        drop(free);
        let buffer = self.create(size).or_else(|_| {
            // What is kept for later may be in the way.
            self.flush()?;
            lock(&self.memory.0).clear();
            let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
            self.create(size)
        })?;
        Ok(Block { buffer: Some(buffer), pool: Arc::clone(&self.memory) })
    }

    fn create(&self, size: u64) -> Result<wgpu::Buffer> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        match pollster::block_on(scope.pop()) {
            None => Ok(buffer),
            Some(_) => Err(Error::Memory(format!("the GPU has no room for another {} MiB", size >> 20))),
        }
    }

    /// Records something for the device.
    fn record(&self, what: impl FnOnce(&mut Recorded)) -> Result<()> {
        let mut recorded = lock(&self.recorded);
        if recorded.count >= recorded.batch {
            self.submit(&mut recorded);
            recorded.batch = (2 * recorded.batch).min(BATCH);
        }
        what(&mut recorded);
        drop(recorded);
        self.check()
    }

    /// Records a copy.
    fn record_copy(&self, what: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<()> {
        self.record(|recorded| {
            recorded.pass = None;
            what(self.encoder(recorded));
        })
    }

    fn encoder<'a>(&self, recorded: &'a mut Recorded) -> &'a mut wgpu::CommandEncoder {
        let made = || self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        recorded.encoder.get_or_insert_with(made)
    }

    /// Records `work` on `tensors` with `numbers`, in so many workgroups.
    pub fn run(&self, work: Work, numbers: &[Number], tensors: &[&Block], groups: [usize; 3]) -> Result<()> {
        let pipeline = &self.pipelines[&work];
        self.record(|recorded| {
            let offset = recorded.numbers.len();
            for number in numbers {
                recorded.numbers.extend(match *number {
                    Number::U(value) => (value as u32).to_le_bytes(),
                    Number::F(value) => (value as f32).to_le_bytes(),
                });
            }
            recorded.numbers.resize(offset + SLOT, 0);
            recorded.count += 1;
            let numbers = wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &self.numbers,
                    offset: 0,
                    size: std::num::NonZeroU64::new(64),
                }),
            };
            let tensors = tensors.iter().enumerate().map(|(index, block)| wgpu::BindGroupEntry {
                binding: index as u32 + 1,
                resource: block.buffer().as_entire_binding(),
            });
            let entries: Vec<_> = std::iter::once(numbers).chain(tensors).collect();
            let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            let mut pass = recorded.pass.take().unwrap_or_else(|| {
                self.encoder(recorded).begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime()
            });
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[offset as u32]);
            let [x, y, z] = groups.map(|count| count as u32);
            pass.dispatch_workgroups(x, y, z);
            recorded.pass = Some(pass);
        })
    }

    /// Records a copy of `values` values.
    pub fn copy(&self, from: &Block, to: &Block, values: usize) -> Result<()> {
        self.record_copy(|encoder| {
            encoder.copy_buffer_to_buffer(from.buffer(), 0, to.buffer(), 0, Some(4 * values as u64))
        })
    }

    /// Records zeros.
    pub fn clear(&self, block: &Block) -> Result<()> {
        self.record_copy(|encoder| encoder.clear_buffer(block.buffer(), 0, None))
    }

    /// Hands over what is recorded.
    pub fn flush(&self) -> Result<()> {
        self.submit(&mut lock(&self.recorded));
        self.check()
    }

    /// Waits until all that was recorded is done.
    pub fn wait(&self) -> Result<()> {
        self.flush()?;
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(failed)?;
        lock(&self.recorded).batch = FIRST_BATCH;
        self.check()
    }

    fn submit(&self, recorded: &mut Recorded) {
        recorded.pass = None;
        if let Some(encoder) = recorded.encoder.take() {
            // The numbers of the batch before are read before these are written: a queue keeps its order.
            self.queue.write_buffer(&self.numbers, 0, &recorded.numbers);
            self.queue.submit([encoder.finish()]);
        }
        recorded.numbers.clear();
        recorded.count = 0;
    }

    /// Writes values (or other words of 32 bits).
    pub fn write<T: bytemuck::NoUninit>(&self, block: &Block, values: &[T]) -> Result<()> {
        // What is recorded may still use the memory for something else.
        self.flush()?;
        self.queue.write_buffer(block.buffer(), 0, bytemuck::cast_slice(values));
        Ok(())
    }

    /// Reads `count` values, after all that was recorded.
    pub fn read(&self, block: &Block, count: usize) -> Result<Vec<f32>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let size = 4 * count as u64;
        let kept = lock(&self.staging).take_if(|kept| kept.size() >= size);
        let staging = kept.unwrap_or_else(|| {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        self.record_copy(|encoder| encoder.copy_buffer_to_buffer(block.buffer(), 0, &staging, 0, Some(size)))?;
        self.flush()?;
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.slice(..size).map_async(wgpu::MapMode::Read, move |result| {
            // Nobody waits any more only if the wait below failed.
            let _ = sender.send(result);
        });
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(failed)?;
        lock(&self.recorded).batch = FIRST_BATCH;
        match receiver.try_recv() {
            Ok(result) => result.map_err(failed)?,
            Err(_) => return Err(failed("its results did not come")),
        }
        let values = bytemuck::pod_collect_to_vec(&staging.slice(..size).get_mapped_range().map_err(failed)?);
        staging.unmap();
        let mut kept = lock(&self.staging);
        if staging.size() <= MOST_KEPT && kept.as_ref().is_none_or(|kept| kept.size() < staging.size()) {
            *kept = Some(staging);
        }
        drop(kept);
        self.check()?;
        Ok(values)
    }
}

fn pipeline(device: &wgpu::Device, work: Work) -> wgpu::ComputePipeline {
    let (text, writes) = work.shader();
    let label = format!("{work:?}");
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(&label),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    let entry = |binding: usize, ty, dynamic| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: dynamic,
            min_binding_size: if dynamic { std::num::NonZeroU64::new(64) } else { None },
        },
        count: None,
    };
    let tensors = writes
        .iter()
        .enumerate()
        .map(|(index, &writes)| entry(index + 1, wgpu::BufferBindingType::Storage { read_only: !writes }, false));
    let entries: Vec<_> = std::iter::once(entry(0, wgpu::BufferBindingType::Uniform, true)).chain(tensors).collect();
    let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        ..Default::default()
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&label),
        layout: Some(&layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            // Every shader writes its workgroup's memory before it reads it.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    })
}

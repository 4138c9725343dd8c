//! FOR ONE RUN ONLY: how long each kind of work takes on the device, with `MZSR_GPU_TIMES` set.

use std::collections::BTreeMap;

pub struct Times {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    period: f64,
    pub labels: Vec<String>,
    sums: BTreeMap<String, (usize, f64)>,
    gaps: (usize, f64),
    last: Option<u64>,
}

pub fn wanted() -> bool {
    std::env::var_os("MZSR_GPU_TIMES").is_some()
}

pub fn say(what: &str, since: std::time::Instant) {
    if wanted() {
        eprintln!("times: {what}: {:.1} ms", since.elapsed().as_secs_f64() * 1e3);
    }
}

impl Times {
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, batch: usize) -> Option<Self> {
        if !wanted() || !device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return None;
        }
        let size = 16 * batch as u64;
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        Some(Times {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2 * batch as u32,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            staging: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            period: f64::from(queue.get_timestamp_period()) * 1e-3,
            labels: Vec::new(),
            sums: BTreeMap::new(),
            gaps: (0, 0.0),
            last: None,
        })
    }

    pub fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        let at = 2 * self.labels.len() as u32;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(at),
            end_of_pass_write_index: Some(at + 1),
        }
    }

    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let count = 2 * self.labels.len() as u32;
        if count > 0 {
            encoder.resolve_query_set(&self.queries, 0..count, &self.resolved, 0);
            encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, Some(8 * u64::from(count)));
        }
    }

    pub fn collect(&mut self, device: &wgpu::Device) {
        let labels = std::mem::take(&mut self.labels);
        if labels.is_empty() {
            return;
        }
        self.staging.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        let _ = device.poll(wgpu::PollType::wait_indefinitely());
        let stamps: Vec<u64> =
            bytemuck::pod_collect_to_vec(&self.staging.slice(..).get_mapped_range().expect("mapped"));
        self.staging.unmap();
        self.last = None;
        for (label, pair) in labels.into_iter().zip(stamps.chunks(2)) {
            let sum = self.sums.entry(label).or_default();
            sum.0 += 1;
            sum.1 += pair[1].wrapping_sub(pair[0]) as f64 * self.period;
            if let Some(last) = self.last {
                self.gaps.0 += 1;
                self.gaps.1 += pair[0].wrapping_sub(last) as f64 * self.period;
            }
            self.last = Some(pair[1]);
        }
    }
}

impl Drop for Times {
    fn drop(&mut self) {
        let mut all: Vec<_> = self.sums.iter().collect();
        all.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
        for (label, (count, sum)) in all {
            eprintln!("times: {label:45} {count:7} x {:9.1} us = {:9.2} ms", sum / *count as f64, sum / 1e3);
        }
        let (count, sum) = self.gaps;
        eprintln!("times: between pieces {count} x {:.1} us", sum / count.max(1) as f64);
    }
}

//! `mzsr devices`

use super::Outcome;
use crate::Result;
use crate::engine::{Listed, devices};
use std::fmt::Write;

/// Runs the command.
pub(super) fn run() -> Result<Outcome> {
    super::print(&text(&devices()))?;
    Ok(Outcome::Done)
}

fn text(devices: &[Listed]) -> String {
    let mut out = "cpu    this processor\n".to_owned();
    for (number, device) in devices.iter().enumerate() {
        let Listed { name, backend, kind, driver, largest, auto } = device;
        let auto = if *auto { ", taken by auto for large work" } else { "" };
        let largest = largest >> 20;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "gpu:{number}  {name} ({kind}, {backend}, {driver}), tensors up to {largest} MiB{auto}");
    }
    if devices.is_empty() {
        out += "no GPU: no driver for Vulkan, Metal or DX12 was found\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_numbered() {
        let device = Listed {
            name: "Card".into(),
            backend: "vulkan",
            kind: "discrete",
            driver: "driver 1".into(),
            largest: 2 << 30,
            auto: true,
        };
        let lines = text(&[device]);
        assert!(lines.ends_with(
            "gpu:0  Card (discrete, vulkan, driver 1), tensors up to 2048 MiB, taken by auto for large work\n"
        ));
        assert!(text(&[]).contains("no GPU"));
    }
}

//! Memory and errors of a device: nothing panics.

mod common;

use common::{choice, columns, gpu, upload};
use modelembed_gpu::{Backend, Choice, Error, Gpu, GpuOptions, Op};

#[test]
fn an_unknown_adapter_is_an_error_that_lists_what_was_found() {
    let options = GpuOptions { choice: Choice::Named("no such device".into()), ..GpuOptions::default() };
    let error = Gpu::open(&options).expect_err("no adapter").to_string();
    assert!(error.contains("Vulkan"), "{error}");
}

#[test]
fn memory_beyond_the_budget_is_refused_and_freed_memory_can_be_had_again() {
    let Some(choice) = choice() else { return };
    let options = GpuOptions { choice, budget_bytes: Some(1 << 20), ..GpuOptions::default() };
    let gpu = Gpu::open(&options).expect("opens");
    let first = gpu.alloc("the first", 700 << 10).expect("memory");
    let error = gpu.alloc("the second", 700 << 10).expect_err("no memory");
    assert!(matches!(&error, Error::OutOfMemory { what, wanted_bytes: 716_800 } if what == "the second"), "{error}");
    drop(first);
    assert_eq!(gpu.used_bytes(), 0);
    gpu.alloc("the second", 700 << 10).expect("memory");
}

#[test]
fn a_buffer_beyond_the_adapters_limit_is_refused() {
    let Some(gpu) = gpu() else { return };
    let error = gpu.alloc("too much", 1 << 60).expect_err("a limit");
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

#[test]
fn what_the_library_refuses_is_an_error_and_the_device_goes_on() {
    let Some(gpu) = gpu() else { return };
    let buffer = upload(&gpu, &[1, 2, 3, 4, 5]);
    let beyond = Op::Copy { from: buffer.clone(), from_byte: 0, to: buffer.clone(), to_byte: 1 << 20, len_bytes: 4 };
    let error = gpu.run(&[beyond]).expect_err("refused");
    assert!(matches!(error, Error::Device(_)), "{error}");
    assert!(gpu.write(&buffer, 1 << 20, &[0; 4]).is_err());
    gpu.run(&[Op::Add { acc: columns(&buffer, 0, 0), x: columns(&buffer, 0, 0), len: 1 }]).expect("goes on");
    let mut back = [0; 8];
    gpu.read(&buffer, 0, &mut back).expect("reads");
    assert_eq!(back[4..], [5, 0, 0, 0]);
}

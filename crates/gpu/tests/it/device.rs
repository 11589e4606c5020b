//! Memory and errors of a device: nothing panics.

use modelembed_gpu::{Backend, Choice, Error, Gpu, GpuOptions, Op};

use crate::common::{choice, columns, gpu, upload};

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
fn memory_that_turns_out_to_be_missing_is_refused_when_it_is_written() {
    let Some(choice) = choice() else { return };
    let options = GpuOptions { choice, filled_bytes: Some(1 << 20), ..GpuOptions::default() };
    let gpu = Gpu::open(&options).expect("opens");
    let [first, second] = ["the first", "the second"].map(|what| gpu.alloc(what, 700 << 10).expect("a promise"));
    let bytes = vec![1; 600 << 10];
    gpu.write(&first, 0, &bytes).expect("memory");
    gpu.write(&first, 0, &bytes).expect("the same memory");
    let error = gpu.write(&second, 0, &bytes).expect_err("no memory");
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    drop((first, second));
    let again = gpu.alloc("the third", 700 << 10).expect("a promise");
    gpu.write(&again, 0, &bytes).expect("memory");
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
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(gpu.write(&buffer, 1 << 20, &[0; 4]).is_err());
    gpu.run(&[Op::Add { acc: columns(&buffer, 0, 0), x: columns(&buffer, 0, 0), len: 1 }]).expect("goes on");
    let mut back = [0; 8];
    gpu.read(&buffer, 0, &mut back).expect("reads");
    assert_eq!(back[4..], [5, 0, 0, 0]);
}

#[test]
fn much_is_uploaded_through_little_memory_and_arrives() {
    let Some(gpu) = gpu() else { return };
    // More than the ring holds, an odd number of bytes, and not at the buffer's beginning.
    let bytes: Vec<u8> = (0..(21usize << 20) + 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let buffer = gpu.alloc("much", bytes.len() as u64 + 12).expect("memory");
    gpu.write(&buffer, 8, &bytes).expect("writes");
    gpu.write(&buffer, 0, &[1; 8]).expect("writes");
    gpu.finish_writing().expect("finishes");
    let mut back = vec![0; bytes.len().next_multiple_of(4) + 8];
    gpu.read(&buffer, 0, &mut back).expect("reads");
    assert!(back[..8] == [1; 8] && back[8..][..bytes.len()] == bytes[..]);
}

#[test]
fn everything_asked_of_a_lost_device_is_an_error() {
    let Some(gpu) = gpu() else { return };
    let buffer = upload(&gpu, &[1, 2, 3, 4]);
    gpu.measure();
    gpu.give_up();
    let lost = |what: &str, error: Error| assert!(matches!(error, Error::Lost { .. }), "{what}: {error}");
    for _ in 0..2 {
        lost("memory", gpu.alloc("more", 4).expect_err("lost"));
        lost("little", gpu.write(&buffer, 0, &[0; 4]).expect_err("lost"));
        lost("much", gpu.write(&buffer, 0, &vec![0; 8 << 20]).expect_err("lost"));
        let add = Op::Add { acc: columns(&buffer, 0, 0), x: columns(&buffer, 0, 0), len: 1 };
        lost("steps", gpu.run(&[add]).expect_err("lost"));
        lost("reading", gpu.read(&buffer, 0, &mut [0; 4]).expect_err("lost"));
        lost("the clock", gpu.busy().expect_err("lost"));
        lost("finishing", gpu.finish_writing().expect_err("lost"));
    }
}

#[test]
fn the_clock_of_the_device_runs_while_it_computes() {
    let Some(gpu) = gpu() else { return };
    assert_eq!(gpu.busy().expect("no clock yet"), None);
    gpu.measure();
    let Some(start) = gpu.busy().expect("a clock") else { return };
    let buffer = gpu.alloc("numbers", 4 << 14).expect("memory");
    let add = || Op::Add { acc: columns(&buffer, 0, 0), x: columns(&buffer, 0, 0), len: 1 << 14 };
    let since = std::time::Instant::now();
    // More lists than stamps are kept for.
    (0..300).for_each(|_| gpu.run(&[add()]).expect("runs"));
    let busy = gpu.busy().expect("a clock").expect("a time");
    assert!(start.is_zero() && !busy.is_zero() && busy <= since.elapsed(), "{start:?} {busy:?}");
    assert_eq!(gpu.busy().expect("a clock"), Some(busy), "nothing was computed since");
}

#[test]
fn an_adapter_that_lacks_what_kernels_need_is_refused_by_name() {
    let Some(choice) = choice() else { return };
    let options = GpuOptions { choice, max_workgroup_bytes: Some(4096), ..GpuOptions::default() };
    let error = Gpu::open(&options).expect_err("too little");
    assert!(matches!(error, Error::Lacks { has: 4096, .. }), "{error}");
    assert!(error.to_string().contains("bytes that a workgroup shares is 4096"), "{error}");
}

#[test]
fn a_device_is_lost_when_it_is_meant_to_be() {
    let Some(choice) = choice() else { return };
    let open = |lost_after_bytes, lost_after_runs| {
        let options = GpuOptions { choice: choice.clone(), lost_after_bytes, lost_after_runs, ..GpuOptions::default() };
        Gpu::open(&options).expect("opens")
    };
    let gpu = open(Some(8), None);
    let buffer = gpu.alloc("bytes", 4).expect("memory");
    gpu.write(&buffer, 0, &[0; 4]).expect("writes");
    gpu.write(&buffer, 0, &[0; 4]).expect("writes as much");
    let error = gpu.write(&buffer, 0, &[0; 4]).expect_err("lost");
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    let gpu = open(None, Some(1));
    let buffer = gpu.alloc("bytes", 4).expect("memory");
    let add = || Op::Add { acc: columns(&buffer, 0, 0), x: columns(&buffer, 0, 0), len: 1 };
    gpu.prepare(&[add()]).expect("runs nothing");
    gpu.run(&[add()]).expect("runs");
    let error = gpu.run(&[add()]).expect_err("lost");
    assert!(matches!(error, Error::Lost { .. }), "{error}");
}

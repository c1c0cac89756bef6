//! What the stand-in refuses, and that it puts work off: mistakes must show as they would on a GPU, or earlier.

mod common;

use common::on_the_stand_in;
use cudarc::driver::sys::CUresult::{self, *};
use cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL as GLOBAL;
use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags};
use cudarc::driver::{CudaContext, CudaGraph, CudaStream, DevicePtr, DevicePtrMut, result};
use duel_backend::Error;
use duel_cuda::{Argument, Device, Driver, Grid, Settings, compile, sys};
use duel_kernels::{SOURCES, Source};
use std::ffi::c_void;
use std::sync::Arc;

fn device() -> Device {
    open().unwrap_or_else(|error| panic!("{error}"))
}

fn open() -> duel_backend::Result<Device> {
    Device::open_with(0, Settings { cache: None, ..Settings::default() })
}

/// A context and a stream of it, ordered by hand as those of `Device` are.
fn stream() -> Arc<CudaStream> {
    let context = CudaContext::new(0).expect("the stand-in has a device");
    // SAFETY: these tests use one stream.
    unsafe { context.disable_event_tracking() };
    context.new_stream().expect("it has streams")
}

fn error_of<T>(done: Result<T, result::DriverError>) -> Option<CUresult> {
    done.err().map(|error| error.0)
}

fn end_capture(stream: &Arc<CudaStream>) -> Result<CudaGraph, result::DriverError> {
    stream.end_capture(CUgraphInstantiate_flags(0)).map(|graph| graph.expect("a capture gives a graph"))
}

/// Launches `gelu_f32` of `len` numbers.
fn launch_gelu(device: &Device, y: u64, x: u64, len: u64) {
    let params =
        sys::GeluParams { y: y as *mut c_void, x: x as *const c_void, len, kind: sys::ACTIVATION_GELU_TANH };
    // SAFETY: the kernel takes this struct. That its addresses may be wrong is what the stand-in is to notice.
    unsafe { device.launch("gelu_f32", Grid::linear(1, 256), &[Argument::of(&params)]) };
}

// ---- the device -----------------------------------------------------------------------------------------------------

#[test]
fn it_says_what_it_is() {
    on_the_stand_in("it_says_what_it_is", &[("DUEL_STANDIN_CAPABILITY", "86")], || {
        let device = device();
        let name = "duel stand-in (host emulation), compute capability 8.6, products by cuBLASLt 13.0";
        assert_eq!(device.describe(), name);
        assert_eq!(device.properties().max_shared, 99 << 10);
    });
}

#[test]
fn a_hidden_device_is_reported() {
    on_the_stand_in("a_hidden_device_is_reported", &[("CUDA_VISIBLE_DEVICES", "")], || {
        let message = Device::open(0).err().expect("no device is shown").to_string();
        assert!(message.contains("CUDA_VISIBLE_DEVICES may hide it"), "{message}");
    });
}

#[test]
fn an_old_device_is_refused() {
    on_the_stand_in("an_old_device_is_refused", &[("DUEL_STANDIN_CAPABILITY", "75")], || {
        let message = Device::open(0).err().expect("the kernels need 8.0").to_string();
        assert!(message.contains("is of compute capability 7.5"), "{message}");
    });
}

#[test]
fn there_is_one_device() {
    on_the_stand_in("there_is_one_device", &[], || {
        let message = Device::open(1).err().expect("there is one").to_string();
        assert!(message.contains("there is no device 1: the NVIDIA driver shows 1"), "{message}");
    });
}

// ---- memory ---------------------------------------------------------------------------------------------------------

#[test]
fn memory_has_an_end() {
    on_the_stand_in("memory_has_an_end", &[("DUEL_STANDIN_MEMORY", "1000000")], || {
        let device = device();
        let first = device.alloc(600_000).expect("there is room");
        let refused = device.alloc(600_000).err().expect("there is no room");
        assert_eq!(refused, Error::OutOfMemory { bytes: 600_000 });
        let context = CudaContext::new(0).expect("the device is open");
        assert_eq!(context.mem_get_info(), Ok((400_000, 1_000_000)));
        drop(first);
        device.alloc(600_000).expect("there is room again");
        device.finish().expect("nothing went wrong");
    });
}

#[test]
fn fresh_memory_is_junk() {
    on_the_stand_in("fresh_memory_is_junk", &[], || {
        let stream = stream();
        // SAFETY: it is read as bytes.
        let memory = unsafe { stream.alloc::<u8>(3) }.expect("room for a test");
        assert_eq!(stream.clone_dtoh(&memory), Ok(vec![0xff; 3]));
    });
}

#[test]
fn freed_memory_is_gone() {
    on_the_stand_in("freed_memory_is_gone", &[], || {
        let stream = stream();
        let memory = stream.alloc_zeros::<u8>(8).expect("room for a test");
        let (address, raw) = (memory.device_ptr(&stream).0, stream.cu_stream());
        drop(memory);
        // SAFETY: the call is to be refused.
        let copied = unsafe { result::memcpy_htod_async(address, &[1u8], raw) };
        assert_eq!(error_of(copied), Some(CUDA_ERROR_INVALID_VALUE));
        // SAFETY: as above.
        assert_eq!(error_of(unsafe { result::free_async(address, raw) }), Some(CUDA_ERROR_INVALID_VALUE));
        // SAFETY: as above.
        assert_eq!(error_of(unsafe { result::free_sync(address) }), Some(CUDA_ERROR_INVALID_VALUE));
        assert!(stream.synchronize().is_ok());
    });
}

#[test]
fn a_copy_stays_inside_its_memory() {
    on_the_stand_in("a_copy_stays_inside_its_memory", &[], || {
        let stream = stream();
        let mut memory = stream.alloc_zeros::<u8>(8).expect("room for a test");
        let (address, raw) = (memory.device_ptr_mut(&stream).0, stream.cu_stream());
        // SAFETY: the calls are to be refused.
        let done = unsafe {
            [
                result::memcpy_htod_async(address + 1, &[0u8; 8], raw),
                result::memcpy_dtoh_async(&mut [0u8; 9], address, raw),
                result::memset_d8_async(address, 0, 9, raw),
                result::memcpy_dtod_async(address + 1, address, 7, raw), // they overlap
                // An address of the device in place of one of the host.
                result::memcpy_htod_async(address, std::slice::from_raw_parts(address as *const u8, 4), raw),
            ]
        };
        assert_eq!(done.map(error_of), [Some(CUDA_ERROR_INVALID_VALUE); 5]);
        assert!(stream.synchronize().is_ok());
    });
}

// ---- launches -------------------------------------------------------------------------------------------------------

#[test]
fn a_kernel_is_given_live_memory() {
    on_the_stand_in("a_kernel_is_given_live_memory", &[], || {
        let device = device();
        let x = device.alloc(256).expect("room for a test");
        let y = device.alloc(256).expect("room for a test");
        let gone = device.address(&y);
        launch_gelu(&device, gone, device.address(&x), 64);
        device.finish().expect("both are there");
        drop(y);
        launch_gelu(&device, gone, device.address(&x), 64);
        let message = device.finish().expect_err("y is gone").to_string();
        assert!(message.contains("gelu_f32") && message.contains("INVALID_VALUE"), "{message}");
        // Memory of the host is none of the device.
        let host = [0f32; 64];
        launch_gelu(&device, device.address(&x), host.as_ptr() as u64, 64);
        assert!(device.finish().is_err());
        assert!(device.finish().is_ok());
    });
}

#[test]
fn a_write_outside_ends_the_use_of_the_device() {
    on_the_stand_in("a_write_outside_ends_the_use_of_the_device", &[], || {
        let device = device();
        let x = device.alloc(512).expect("room for a test");
        let y = device.alloc(256).expect("room for a test");
        launch_gelu(&device, device.address(&y), device.address(&x), 65);
        let message = device.finish().expect_err("y has 64 numbers").to_string();
        assert!(message.contains("in gelu_f32 or a kernel before it"), "{message}");
        assert!(message.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{message}");
        assert!(device.finish().is_err(), "a context does not recover");
        assert!(open().is_err() || device.alloc(1).is_err());
    });
}

#[test]
fn shared_memory_is_asked_for() {
    on_the_stand_in("shared_memory_is_asked_for", &[], || {
        let device = device();
        let x = device.alloc(256).expect("room for a test");
        let address = device.address(&x);
        let params =
            sys::GeluParams { y: address as *mut c_void, x: address as *const c_void, len: 64, kind: 0 };
        let launch = |shared| {
            let grid = Grid::linear(1, 256).with_shared(shared);
            // SAFETY: the kernel takes this struct, and its memory is there.
            unsafe { device.launch("gelu_f32", grid, &[Argument::of(&params)]) };
            device.finish()
        };
        launch(227 << 10).expect("a device of 9.0 has so much");
        let message = launch((227 << 10) + 1).expect_err("and not more").to_string();
        assert!(message.contains("232449 bytes of shared memory"), "{message}");
    });
}

#[test]
fn more_threads_than_the_launch_bound_are_refused() {
    on_the_stand_in("more_threads_than_the_launch_bound_are_refused", &[], || {
        let device = device();
        // SAFETY: the launch is to be refused before anything reads arguments.
        unsafe { device.launch("gelu_f32", Grid::linear(1, 512), &[]) };
        let message = device.finish().expect_err("its launch bound is 256").to_string();
        assert!(message.contains("LAUNCH_OUT_OF_RESOURCES"), "{message}");
    });
}

#[test]
fn code_for_another_device_is_refused() {
    on_the_stand_in("code_for_another_device_is_refused", &[], || {
        let _stream = stream();
        let gelu = SOURCES.iter().find(|source| source.name == "gelu.cu").expect("there is one");
        // SAFETY: the images are whole, or not looked at further than their beginning.
        let load = |image: &[u8]| unsafe { result::module::load_data(image.as_ptr().cast()) };
        let code = |capability| compile(gelu, capability).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(error_of(load(&code(80))), Some(CUDA_ERROR_NO_BINARY_FOR_GPU));
        assert_eq!(error_of(load(&[0; 64])), Some(CUDA_ERROR_INVALID_IMAGE));
        let module = load(&code(90)).expect("it is for this device");
        // SAFETY: the module is loaded.
        let function = |name: &str| unsafe {
            result::module::get_function(module, std::ffi::CString::new(name).expect("no zero in it"))
        };
        assert!(function("gelu_f32").is_ok());
        assert_eq!(error_of(function("rope_f32")), Some(CUDA_ERROR_NOT_FOUND));
        // SAFETY: nothing of it runs.
        unsafe { result::module::unload(module) }.expect("it is loaded");
        assert_eq!(error_of(function("gelu_f32")), Some(CUDA_ERROR_INVALID_HANDLE));
    });
}

#[test]
fn the_compiler_takes_kernels_and_known_headers() {
    on_the_stand_in("the_compiler_takes_kernels_and_known_headers", &[], || {
        let message = |text| {
            let source = Source { name: "broken.cu", text };
            compile(&source, 80).expect_err("it does not compile").to_string()
        };
        let no_kernel = message("#include \"params.h\"\nint x = missing;\n");
        for part in
            ["broken.cu for sm_80, NVRTC 13.99", "the compiler rejects the source", "broken.cu(2)", "missing"]
        {
            assert!(no_kernel.contains(part), "no {part:?} in {no_kernel}");
        }
        let no_header = message("#include \"nothing.h\"\n");
        assert!(no_header.contains("cannot open source file \"nothing.h\""), "{no_header}");
    });
}

// ---- contexts and streams -------------------------------------------------------------------------------------------

#[test]
fn a_thread_needs_a_context() {
    on_the_stand_in("a_thread_needs_a_context", &[], || {
        let context = CudaContext::new(0).expect("the stand-in has a device");
        // SAFETY: the call is to be refused, or gives memory that goes with the process.
        let alloc = || unsafe { result::malloc_sync(16) };
        let elsewhere = std::thread::spawn(move || error_of(alloc())).join();
        assert_eq!(elsewhere.expect("it does not panic"), Some(CUDA_ERROR_INVALID_CONTEXT));
        assert!(alloc().is_ok());
        drop(context);
        assert_eq!(error_of(alloc()), Some(CUDA_ERROR_CONTEXT_IS_DESTROYED));
    });
}

/// What is on the device when a pinned buffer is filled again right after the copy from it was started.
fn refilled(wait: bool) -> Vec<u8> {
    let stream = stream();
    let context = stream.context();
    // SAFETY: it is filled before it is read.
    let mut staging = unsafe { context.alloc_pinned::<u8>(2) }.expect("room for a test");
    let address = staging.as_mut_ptr().expect("nothing uses it");
    let mut memory = stream.alloc_zeros::<u8>(2).expect("room for a test");
    let event = context.new_event(Some(CUevent_flags::CU_EVENT_DISABLE_TIMING)).expect("there are events");
    // SAFETY: the buffer has two bytes, and the raw copy is one of two bytes. That they change too early is the point.
    unsafe {
        address.copy_from([1, 2].as_ptr(), 2);
        let bytes = std::slice::from_raw_parts(address, 2);
        result::memcpy_htod_async(memory.device_ptr_mut(&stream).0, bytes, stream.cu_stream())
            .expect("a copy in range");
        event.record(&stream).expect("the event is there");
        if wait {
            assert!(!event.is_complete(), "nobody has waited");
            event.synchronize().expect("nothing went wrong");
            assert!(event.is_complete());
        }
        address.copy_from([3, 4].as_ptr(), 2);
    }
    stream.clone_dtoh(&memory).expect("nothing went wrong")
}

#[test]
fn a_staging_buffer_is_read_late() {
    on_the_stand_in("a_staging_buffer_is_read_late", &[("DUEL_STANDIN_EAGER", "0")], || {
        assert_eq!(refilled(false), [3, 4]);
        assert_eq!(refilled(true), [1, 2]);
    });
}

#[test]
fn a_staging_buffer_is_read_at_once_if_asked_for() {
    on_the_stand_in("a_staging_buffer_is_read_at_once_if_asked_for", &[("DUEL_STANDIN_EAGER", "1")], || {
        assert_eq!(refilled(false), [1, 2]);
    });
}

#[test]
fn time_passes_between_events() {
    on_the_stand_in("time_passes_between_events", &[], || {
        let stream = stream();
        let event = || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).expect("there are events");
        let (start, end) = (event(), event());
        assert!(start.elapsed_ms(&end).expect("both were recorded") >= 0.0);
        let untimed = stream.record_event(None).expect("there are events");
        assert_eq!(error_of(start.elapsed_ms(&untimed)), Some(CUDA_ERROR_INVALID_HANDLE));
    });
}

// ---- capture --------------------------------------------------------------------------------------------------------

/// A call during a capture is refused, and ends it.
fn refused_in_capture(call: impl FnOnce(&Arc<CudaStream>) -> Option<CUresult>) {
    let stream = stream();
    let mut memory = stream.alloc_zeros::<u8>(8).expect("room for a test");
    stream.synchronize().expect("nothing went wrong");
    stream.begin_capture(GLOBAL).expect("nothing is captured yet");
    stream.memset_zeros(&mut memory).expect("this may be captured");
    assert_eq!(call(&stream), Some(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED));
    assert_eq!(error_of(stream.memset_zeros(&mut memory)), Some(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
    assert_eq!(error_of(end_capture(&stream)), Some(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
    stream.memset_zeros(&mut memory).expect("the stream goes on");
    stream.synchronize().expect("nothing went wrong");
}

#[test]
fn a_capture_does_not_wait() {
    on_the_stand_in("a_capture_does_not_wait", &[], || {
        refused_in_capture(|stream| error_of(stream.synchronize()));
        refused_in_capture(|stream| error_of(stream.context().synchronize()));
    });
}

#[test]
fn a_capture_does_not_allocate() {
    on_the_stand_in("a_capture_does_not_allocate", &[], || {
        // SAFETY: the calls are to be refused.
        unsafe {
            refused_in_capture(|stream| error_of(stream.alloc::<u8>(1)));
            refused_in_capture(|_| error_of(result::malloc_sync(1)));
            refused_in_capture(|_| error_of(result::malloc_host(1, 0)));
        }
    });
}

#[test]
fn a_capture_does_not_copy_at_once() {
    on_the_stand_in("a_capture_does_not_copy_at_once", &[], || {
        refused_in_capture(|stream| {
            let outside = stream.context().new_stream().expect("streams may be made");
            let memory = outside.alloc_zeros::<u8>(1).expect("on another stream");
            // SAFETY: the call is to be refused.
            error_of(unsafe { result::memcpy_dtoh_sync(&mut [0u8], memory.device_ptr(&outside).0) })
        });
    });
}

#[test]
fn a_capture_does_not_mix_with_other_work() {
    on_the_stand_in("a_capture_does_not_mix_with_other_work", &[], || {
        let stream = stream();
        let before = stream.record_event(None).expect("there are events");
        stream.begin_capture(GLOBAL).expect("nothing is captured yet");
        assert_eq!(error_of(stream.wait(&before)), Some(CUDA_ERROR_STREAM_CAPTURE_ISOLATION));
        assert!(end_capture(&stream).is_err());

        let event = stream.context().new_event(None).expect("there are events");
        stream.begin_capture(GLOBAL).expect("the first is over");
        event.record(&stream).expect("this may be captured");
        let _graph = end_capture(&stream).expect("nothing disturbed it");
        assert_eq!(error_of(event.synchronize()), Some(CUDA_ERROR_CAPTURED_EVENT));
    });
}

#[test]
fn a_graph_does_its_work_when_launched() {
    on_the_stand_in("a_graph_does_its_work_when_launched", &[], || {
        let stream = stream();
        let mut a = stream.clone_htod(&[1u8, 2]).expect("room for a test");
        let mut b = stream.clone_htod(&[3u8, 4]).expect("room for a test");
        stream.begin_capture(GLOBAL).expect("nothing is captured yet");
        stream.memcpy_dtod(&a, &mut b).expect("this may be captured");
        stream.memset_zeros(&mut a).expect("this may be captured");
        let graph = end_capture(&stream).expect("nothing disturbed it");
        assert_eq!(stream.clone_dtoh(&b), Ok(vec![3, 4]));
        graph.launch().expect("a whole graph");
        assert_eq!(stream.clone_dtoh(&b), Ok(vec![1, 2]));
        stream.memcpy_htod(&[5u8, 6], &mut a).expect("in range");
        graph.launch().expect("a whole graph");
        assert_eq!([&a, &b].map(|memory| stream.clone_dtoh(memory)), [Ok(vec![0, 0]), Ok(vec![5, 6])]);
        drop(b);
        assert_eq!(error_of(graph.launch()), Some(CUDA_ERROR_INVALID_VALUE));
    });
}

#[test]
fn a_graph_keeps_the_arguments_of_its_kernels() {
    on_the_stand_in("a_graph_keeps_the_arguments_of_its_kernels", &[], || {
        let stream = stream();
        let gelu = SOURCES.iter().find(|source| source.name == "gelu.cu").expect("there is one");
        let code = compile(gelu, 90).unwrap_or_else(|error| panic!("{error}"));
        // SAFETY: the code is whole, and is never unloaded.
        let function = unsafe {
            let module = result::module::load_data(code.as_ptr().cast()).expect("it is for this device");
            result::module::get_function(module, c"gelu_f32".into()).expect("it is in there")
        };
        let mut x = stream.clone_htod(&[20.0f32, 30.0, 40.0, 50.0]).expect("room for a test");
        let mut y = stream.alloc_zeros::<f32>(4).expect("room for a test");
        let mut params = sys::GeluParams {
            y: y.device_ptr_mut(&stream).0 as *mut c_void,
            x: x.device_ptr(&stream).0 as *const c_void,
            len: 4,
            kind: sys::ACTIVATION_GELU_TANH,
        };
        stream.begin_capture(GLOBAL).expect("nothing is captured yet");
        let argument = (&raw mut params).cast::<c_void>();
        // SAFETY: the kernel takes this struct, and its memory is there.
        unsafe {
            result::launch_kernel(function, (1, 1, 1), (256, 1, 1), 0, stream.cu_stream(), &mut [argument])
        }
        .expect("a launch may be captured");
        params.len = 0;
        std::hint::black_box(&params);
        let graph = end_capture(&stream).expect("nothing disturbed it");
        assert_eq!(stream.clone_dtoh(&y), Ok(vec![0.0; 4]));
        graph.launch().expect("a whole graph");
        assert_eq!(stream.clone_dtoh(&y), Ok(vec![20.0, 30.0, 40.0, 50.0]));
        stream.memcpy_htod(&[1e3f32; 4], &mut x).expect("in range");
        graph.launch().expect("a whole graph");
        assert_eq!(stream.clone_dtoh(&y), Ok(vec![1e3; 4]));
    });
}

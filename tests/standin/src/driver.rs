//! The functions of libcuda: those that cudarc calls for contexts, memory, streams, events, modules, launches, graphs
//! and tensor maps.

#![allow(non_snake_case)] // the names are NVIDIA's

use crate::ffi::{Bytes, In, Out, Room, Text};
use crate::kernels::{Arguments, parameters};
use crate::nvrtc::Code;
use crate::world::{
    CURRENT, Capture, CaptureMode, Done, End, Event, Function, LEGACY, Launch, Module, Stream,
};
use crate::world::{Work, World, because, world};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::sys::CUfunction_attribute as OfFunction;
use cudarc::driver::sys::CUresult::{self, *};
use cudarc::driver::sys::CUtensorMapDataType as Element;
use duel_cuda::{Grid, sys};
use duel_kernel_tests::Emulation;
use std::ffi::{CStr, c_char};
use std::sync::Arc;

/// Dynamic shared memory that a block can have without asking for more, in bytes.
const SHARED_UNASKED: i32 = 48 << 10;
/// As many as the emulation has.
const MULTIPROCESSORS: i32 = 2;
const VERSION: i32 = 13000;
const POOL: usize = 0x50;

fn code(done: Done) -> CUresult {
    done.err().unwrap_or(CUDA_SUCCESS)
}

fn stored(done: bool) -> Done {
    if done { Ok(()) } else { Err(CUDA_ERROR_INVALID_VALUE) }
}

/// A call that needs no context, only that there was `cuInit`.
fn anywhere(f: impl FnOnce(&mut World) -> Done) -> CUresult {
    let mut world = world();
    if !world.initialised {
        return CUDA_ERROR_NOT_INITIALIZED;
    }
    code(f(&mut world))
}

/// A call that needs a context.
fn in_context(f: impl FnOnce(&mut World) -> Done) -> CUresult {
    let mut world = world();
    code(world.in_context().and_then(|()| f(&mut world)))
}

// ---- errors ---------------------------------------------------------------------------------------------------------

/// Name and meaning of an error, where the stand-in has it.
fn explain(error: u32) -> Option<(&'static CStr, &'static CStr)> {
    macro_rules! table {
        ($($name:ident $text:literal),* $(,)?) => {
            match error {
                $(e if e == $name as u32 => {
                    const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!("one zero at the end"),
                    };
                    Some((NAME, $text))
                })*
                _ => None,
            }
        };
    }
    table! {
        CUDA_SUCCESS c"no error",
        CUDA_ERROR_INVALID_VALUE c"invalid argument",
        CUDA_ERROR_OUT_OF_MEMORY c"out of memory",
        CUDA_ERROR_NOT_INITIALIZED c"initialization error",
        CUDA_ERROR_NO_DEVICE c"no CUDA-capable device is detected",
        CUDA_ERROR_INVALID_DEVICE c"invalid device ordinal",
        CUDA_ERROR_INVALID_IMAGE c"device kernel image is invalid",
        CUDA_ERROR_INVALID_CONTEXT c"invalid device context",
        CUDA_ERROR_NO_BINARY_FOR_GPU c"no kernel image is available for execution on the device",
        CUDA_ERROR_INVALID_HANDLE c"invalid resource handle",
        CUDA_ERROR_ILLEGAL_STATE c"the operation cannot be performed in the present state",
        CUDA_ERROR_NOT_FOUND c"named symbol not found",
        CUDA_ERROR_NOT_READY c"device not ready",
        CUDA_ERROR_ILLEGAL_ADDRESS c"an illegal memory access was encountered",
        CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES c"too many resources requested for launch",
        CUDA_ERROR_CONTEXT_IS_DESTROYED c"context is destroyed",
        CUDA_ERROR_LAUNCH_FAILED c"unspecified launch failure",
        CUDA_ERROR_NOT_SUPPORTED c"operation not supported",
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED c"operation not permitted when stream is capturing",
        CUDA_ERROR_STREAM_CAPTURE_INVALIDATED c"operation failed due to a previous error during capture",
        CUDA_ERROR_STREAM_CAPTURE_ISOLATION c"dependency created on uncaptured work in another stream",
        CUDA_ERROR_CAPTURED_EVENT c"operation not permitted on an event last recorded in a capturing stream",
        CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD c"attempt to terminate a thread-local capture sequence from another thread",
    }
}

fn explained(
    error: u32,
    which: fn((&'static CStr, &'static CStr)) -> &'static CStr,
    out: Out<*const c_char>,
) -> CUresult {
    match explain(error).map(which) {
        Some(text) => code(stored(out.put(text.as_ptr()))),
        None => {
            _ = out.put(std::ptr::null());
            CUDA_ERROR_INVALID_VALUE
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(error: u32, out: Out<*const c_char>) -> CUresult {
    explained(error, |(name, _)| name, out)
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(error: u32, out: Out<*const c_char>) -> CUresult {
    explained(error, |(_, text)| text, out)
}

// ---- the device -----------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: u32) -> CUresult {
    if flags != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if std::env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|shown| shown.is_empty() || shown == "-1") {
        return CUDA_ERROR_NO_DEVICE;
    }
    world().initialised = true;
    CUDA_SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(out: Out<i32>) -> CUresult {
    code(stored(out.put(VERSION)))
}

/// # Errors
/// When it is not the one device.
fn known(device: i32) -> Done {
    if device == 0 { Ok(()) } else { Err(CUDA_ERROR_INVALID_DEVICE) }
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(out: Out<i32>) -> CUresult {
    anywhere(|_| stored(out.put(1)))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(out: Out<i32>, number: i32) -> CUresult {
    anywhere(|_| known(number).and_then(|()| stored(out.put(number))))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(out: Room, len: i32, device: i32) -> CUresult {
    anywhere(|_| {
        known(device)?;
        let mut name = b"duel stand-in (host emulation)\0".to_vec();
        let len = usize::try_from(len).ok().filter(|&len| len > 0).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        name.truncate(len);
        *name.last_mut().expect("it is not empty") = 0;
        stored(out.put(&name))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(out: Room, device: i32) -> CUresult {
    anywhere(|_| known(device).and_then(|()| stored(out.put(b"duel stand-in 00"))))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(out: Out<usize>, device: i32) -> CUresult {
    anywhere(|world| known(device).and_then(|()| stored(out.put(world.settings.memory))))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(out: Out<i32>, attribute: u32, device: i32) -> CUresult {
    anywhere(|world| {
        known(device)?;
        let settings = &world.settings;
        let values = [
            (Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, settings.capability as i32 / 10),
            (Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, settings.capability as i32 % 10),
            (Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, MULTIPROCESSORS),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, SHARED_UNASKED),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, settings.max_shared()),
            (
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
                settings.max_shared() + 1024,
            ),
            (Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1),
            (Attribute::CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1),
            (Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024),
            (Attribute::CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1),
            (Attribute::CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 1),
        ];
        match values.iter().find(|(which, _)| *which as u32 == attribute) {
            Some((_, value)) => stored(out.put(*value)),
            None => because(CUDA_ERROR_INVALID_VALUE, &format!("attribute {attribute} of the device")),
        }
    })
}

// ---- contexts -------------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(out: Out<usize>, device: i32) -> CUresult {
    anywhere(|world| {
        known(device)?;
        if world.retained == 0 {
            world.start();
        }
        world.retained += 1;
        stored(out.put(world.context))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: i32) -> CUresult {
    anywhere(|world| {
        known(device)?;
        world.retained = world.retained.checked_sub(1).ok_or(CUDA_ERROR_INVALID_CONTEXT)?;
        if world.retained == 0 { world.stop() } else { Ok(()) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(out: Out<usize>) -> CUresult {
    anywhere(|_| stored(out.put(CURRENT.get())))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: usize) -> CUresult {
    anywhere(|world| {
        if context != 0 && context != world.context {
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        CURRENT.set(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetFlags(_flags: u32) -> CUresult {
    in_context(|_| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> CUresult {
    in_context(|world| {
        world.undisturbed("cuCtxSynchronize")?;
        world.wait_for_all()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) -> CUresult {
    in_context(|_| stored(least.put(0) && greatest.put(0)))
}

// ---- memory ---------------------------------------------------------------------------------------------------------

/// Memory of the device. Work that was put off may have to free some first.
fn alloc(world: &mut World, out: &Out<u64>, bytes: usize) -> Done {
    if bytes == 0 {
        return because(CUDA_ERROR_INVALID_VALUE, "an allocation of nothing");
    }
    let fits = |world: &World| bytes <= world.settings.memory.saturating_sub(world.device.used());
    if !fits(world) {
        world.wait_for_all()?;
    }
    if !fits(world) {
        return Err(CUDA_ERROR_OUT_OF_MEMORY);
    }
    let address = world.device.alloc(bytes).ok_or(CUDA_ERROR_OUT_OF_MEMORY)?;
    stored(out.put(address))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(out: Out<u64>, bytes: usize) -> CUresult {
    in_context(|world| {
        world.undisturbed("cuMemAlloc")?;
        alloc(world, &out, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(out: Out<u64>, bytes: usize, stream: usize) -> CUresult {
    in_context(|world| {
        // A real one would become memory of the graph, which nothing else may use.
        world.not_capturing(stream, "cuMemAllocAsync")?;
        alloc(world, &out, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> CUresult {
    in_context(|world| {
        if address == 0 {
            return Ok(());
        }
        world.undisturbed("cuMemFree")?;
        // It waits for all work.
        world.wait_for_all()?;
        world.device.leave(address).or_else(|reason| because(CUDA_ERROR_INVALID_VALUE, &reason))?;
        world.device.free(address).or_else(|reason| because(CUDA_ERROR_ILLEGAL_ADDRESS, &reason))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, stream: usize) -> CUresult {
    in_context(|world| {
        world.not_capturing(stream, "cuMemFreeAsync of memory that is not the graph's")?;
        world.device.leave(address).or_else(|reason| because(CUDA_ERROR_INVALID_VALUE, &reason))?;
        world.start_work(stream, Work::Free(address))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> CUresult {
    in_context(|world| {
        let all = world.settings.memory;
        stored(free.put(all.saturating_sub(world.device.used())) && total.put(all))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(out: Out<u64>, bytes: usize, flags: u32) -> CUresult {
    in_context(|world| {
        world.undisturbed("cuMemHostAlloc")?;
        if bytes == 0 || flags & !7 != 0 {
            return because(
                CUDA_ERROR_INVALID_VALUE,
                &format!("{bytes} bytes of pinned memory, flags {flags}"),
            );
        }
        let address = world.pinned.alloc(bytes).ok_or(CUDA_ERROR_OUT_OF_MEMORY)?;
        stored(out.put(address))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(out: Out<u64>, bytes: usize) -> CUresult {
    cuMemHostAlloc(out, bytes, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: u64) -> CUresult {
    in_context(|world| {
        world.undisturbed("cuMemFreeHost")?;
        if !world.pinned.holds(address, 1, true) {
            return because(CUDA_ERROR_INVALID_VALUE, &format!("no pinned memory at {address:#x}"));
        }
        // Who frees it under a copy has lost what is in it.
        world.pinned.spoil(address);
        world.wait_for_all()?;
        world.pinned.free(address).or_else(|reason| because(CUDA_ERROR_INVALID_VALUE, &reason))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetDefaultMemPool(out: Out<usize>, device: i32) -> CUresult {
    anywhere(|_| known(device).and_then(|()| stored(out.put(POOL))))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetMemPool(out: Out<usize>, device: i32) -> CUresult {
    cuDeviceGetDefaultMemPool(out, device)
}

/// The attribute is one of a pool; how memory is kept there changes nothing here.
#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAttribute(pool: usize, attribute: u32, value: Bytes) -> CUresult {
    anywhere(|_| stored(pool == POOL && (1..=4).contains(&attribute) && value.address() != 0))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolTrimTo(pool: usize, _bytes: usize) -> CUresult {
    anywhere(|world| {
        stored(pool == POOL)?;
        world.wait_for_all()
    })
}

// ---- copies ---------------------------------------------------------------------------------------------------------

/// Starts work after a look at the memory that it uses.
fn start(world: &mut World, stream: usize, work: Work) -> Done {
    world.stream(stream)?;
    if let Err(reason) = world.check(&work, true) {
        return because(CUDA_ERROR_INVALID_VALUE, &reason);
    }
    world.start_work(stream, work)
}

/// Memory of the host as an end of a copy: pinned, or the caller's own.
fn host(world: &World, address: u64, bytes: usize) -> Done<bool> {
    if world.pinned.holds(address, bytes, true) {
        return Ok(true);
    }
    if address == 0 || world.pinned.touches(address, bytes) || world.device.touches(address, bytes) {
        return because(
            CUDA_ERROR_INVALID_VALUE,
            &format!("{bytes} bytes at {address:#x} are no memory of the host"),
        );
    }
    Ok(false)
}

fn to_device(world: &mut World, to: u64, from: Bytes, bytes: usize, stream: usize) -> Done {
    if bytes == 0 {
        return Ok(());
    }
    let pinned = host(world, from.address(), bytes)?;
    // What is not pinned is taken within the call; a graph reads it when it runs.
    let from = if pinned || world.is_capturing(stream)? {
        End::Host(from.address())
    } else {
        End::Taken(Arc::new(from.copy(bytes).ok_or(CUDA_ERROR_INVALID_VALUE)?))
    };
    start(world, stream, Work::Copy { to: End::Device(to), from, bytes })
}

fn to_host(world: &mut World, to: Room, from: u64, bytes: usize, stream: usize) -> Done {
    if bytes == 0 {
        return Ok(());
    }
    let pinned = host(world, to.address(), bytes)?;
    start(world, stream, Work::Copy { to: End::Host(to.address()), from: End::Device(from), bytes })?;
    // A copy to what is not pinned is done when the call returns.
    if pinned || world.is_capturing(stream)? { Ok(()) } else { world.wait_for_stream(stream) }
}

fn on_device(world: &mut World, to: u64, from: u64, bytes: usize, stream: usize) -> Done {
    if bytes == 0 {
        return Ok(());
    }
    if to < from.saturating_add(bytes as u64) && from < to.saturating_add(bytes as u64) {
        return because(CUDA_ERROR_INVALID_VALUE, "a copy between ranges that overlap");
    }
    start(world, stream, Work::Copy { to: End::Device(to), from: End::Device(from), bytes })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: Bytes, bytes: usize, stream: usize) -> CUresult {
    in_context(|world| to_device(world, to, from, bytes, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: Room, from: u64, bytes: usize, stream: usize) -> CUresult {
    in_context(|world| to_host(world, to, from, bytes, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> CUresult {
    in_context(|world| on_device(world, to, from, bytes, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: u64, from: Bytes, bytes: usize) -> CUresult {
    in_context(|world| {
        world.undisturbed("cuMemcpyHtoD")?;
        to_device(world, to, from, bytes, LEGACY)?;
        world.wait_for_stream(LEGACY)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: Room, from: u64, bytes: usize) -> CUresult {
    in_context(|world| {
        world.undisturbed("cuMemcpyDtoH")?;
        to_host(world, to, from, bytes, LEGACY)?;
        world.wait_for_stream(LEGACY)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> CUresult {
    in_context(|world| {
        world.undisturbed("cuMemcpyDtoD")?;
        on_device(world, to, from, bytes, LEGACY)
    })
}

fn fill(world: &mut World, at: u64, value: u32, width: usize, count: usize, stream: usize) -> Done {
    if !at.is_multiple_of(width as u64) {
        return because(CUDA_ERROR_INVALID_VALUE, "memory to fill that is not aligned");
    }
    if count == 0 { Ok(()) } else { start(world, stream, Work::Fill { at, value, width, count }) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(at: u64, value: u8, count: usize, stream: usize) -> CUresult {
    in_context(|world| fill(world, at, value.into(), 1, count, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(at: u64, value: u32, count: usize, stream: usize) -> CUresult {
    in_context(|world| fill(world, at, value, 4, count, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(at: u64, value: u8, count: usize) -> CUresult {
    in_context(|world| {
        world.undisturbed("cuMemsetD8")?;
        fill(world, at, value.into(), 1, count, LEGACY)
    })
}

// ---- streams --------------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(out: Out<usize>, flags: u32) -> CUresult {
    in_context(|world| {
        if flags > 1 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let handle = world.handle();
        world.streams.insert(handle, Stream::new(flags == 1));
        stored(out.put(handle))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(out: Out<usize>, flags: u32, _priority: i32) -> CUresult {
    cuStreamCreate(out, flags)
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: usize) -> CUresult {
    in_context(|world| {
        if stream <= 2 {
            return Err(CUDA_ERROR_INVALID_HANDLE);
        }
        let done = world.wait_for_stream(stream);
        world.streams.remove(&stream);
        done
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: usize) -> CUresult {
    in_context(|world| {
        world.not_capturing(stream, "cuStreamSynchronize")?;
        world.wait_for_stream(stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: usize) -> CUresult {
    in_context(|world| {
        world.not_capturing(stream, "cuStreamQuery")?;
        let busy = world.is_busy(stream)?;
        world.wait_for_stream(stream)?; // so that who asks again is told yes
        if busy { Err(CUDA_ERROR_NOT_READY) } else { Ok(()) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, flags: u32) -> CUresult {
    in_context(|world| {
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        world.wait_for_event_on(stream, event)
    })
}

// ---- events ---------------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(out: Out<usize>, flags: u32) -> CUresult {
    in_context(|world| {
        if flags & !7 != 0 || flags & 6 == 4 {
            return Err(CUDA_ERROR_INVALID_VALUE); // one for other processes has no time
        }
        let handle = world.handle();
        world.events.insert(handle, Event::new(flags & 2 == 0));
        stored(out.put(handle))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: usize) -> CUresult {
    in_context(|world| world.events.remove(&event).map(|_| ()).ok_or(CUDA_ERROR_INVALID_HANDLE))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: usize, stream: usize) -> CUresult {
    in_context(|world| world.record(event, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: usize) -> CUresult {
    in_context(|world| {
        world.undisturbed("cuEventSynchronize")?;
        world.wait_for_event(event)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: usize) -> CUresult {
    in_context(|world| {
        world.undisturbed("cuEventQuery")?;
        world.query(event)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(out: Out<f32>, start: usize, end: usize) -> CUresult {
    in_context(|world| {
        let time = world.elapsed(start, end)?;
        stored(out.put(time))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime_v2(out: Out<f32>, start: usize, end: usize) -> CUresult {
    cuEventElapsedTime(out, start, end)
}

// ---- modules and launches -------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(out: Out<usize>, image: Bytes) -> CUresult {
    in_context(|world| {
        world.undisturbed("cuModuleLoadData")?;
        let Some(code) = Code::unpack(image) else {
            return because(CUDA_ERROR_INVALID_IMAGE, "code that the stand-in for NVRTC did not make");
        };
        if !code.runs_on(world.settings.capability) {
            return because(CUDA_ERROR_NO_BINARY_FOR_GPU, &format!("code for {}", code.architecture));
        }
        let handle = world.handle();
        world.modules.insert(handle, Module { kernels: code.kernels });
        stored(out.put(handle))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: usize) -> CUresult {
    in_context(|world| {
        world.modules.remove(&module).ok_or(CUDA_ERROR_INVALID_HANDLE)?;
        world.functions.retain(|_, function| function.module != module);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(out: Out<usize>, module: usize, name: Text) -> CUresult {
    in_context(|world| {
        let name = name.get().ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let kernels = &world.modules.get(&module).ok_or(CUDA_ERROR_INVALID_HANDLE)?.kernels;
        if !kernels.iter().any(|kernel| *kernel == name) {
            return because(CUDA_ERROR_NOT_FOUND, &format!("{name} is not in this code"));
        }
        let handle = world.handle();
        let function = Function { module, kernel: name.into_owned(), shared: SHARED_UNASKED };
        world.functions.insert(handle, function);
        stored(out.put(handle))
    })
}

/// Threads in a block of a kernel, at most.
fn most_threads(kernel: &str) -> u32 {
    let known = duel_kernels::KERNELS.iter().find(|k| k.name == kernel);
    known.map_or(1024, |k| k.threads)
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetAttribute(out: Out<i32>, attribute: u32, function: usize) -> CUresult {
    in_context(|world| {
        let capability = world.settings.capability as i32;
        let function = world.functions.get(&function).ok_or(CUDA_ERROR_INVALID_HANDLE)?;
        let values = [
            (OfFunction::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, most_threads(&function.kernel) as i32),
            (OfFunction::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, 0),
            (OfFunction::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, 0),
            (OfFunction::CU_FUNC_ATTRIBUTE_BINARY_VERSION, capability),
            (OfFunction::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, function.shared),
        ];
        match values.iter().find(|(which, _)| *which as u32 == attribute) {
            Some((_, value)) => stored(out.put(*value)),
            None => because(CUDA_ERROR_INVALID_VALUE, &format!("attribute {attribute} of a function")),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: usize, attribute: u32, value: i32) -> CUresult {
    in_context(|world| {
        let most = world.settings.max_shared();
        let function = world.functions.get_mut(&function).ok_or(CUDA_ERROR_INVALID_HANDLE)?;
        if attribute == OfFunction::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT as u32 {
            return stored((-1..=100).contains(&value));
        }
        if attribute != OfFunction::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as u32
            || !(0..=most).contains(&value)
        {
            let reason = format!(
                "attribute {attribute} of {} as {value}; {most} bytes can be shared",
                function.kernel
            );
            return because(CUDA_ERROR_INVALID_VALUE, &reason);
        }
        function.shared = value;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: usize,
    arguments: In<Bytes>,
    extra: In<Bytes>,
) -> CUresult {
    in_context(|world| {
        let Function { module, kernel, shared: allowed } =
            world.functions.get(&function).ok_or(CUDA_ERROR_INVALID_HANDLE)?;
        let grid = Grid {
            blocks: [grid_x, grid_y, grid_z],
            threads: [block_x, block_y, block_z],
            shared: shared as usize,
        };
        let refuse = |error, what: &str| because(error, &format!("{kernel} in {grid:?}: {what}"));
        let threads = u64::from(block_x) * u64::from(block_y) * u64::from(block_z);
        let blocks = grid_x > 0
            && grid_x <= i32::MAX as u32
            && [grid_y, grid_z].iter().all(|n| (1..=65535).contains(n));
        if !blocks || threads == 0 || threads > 1024 || block_z > 64 {
            return refuse(CUDA_ERROR_INVALID_VALUE, "no device has such a grid");
        }
        if threads > u64::from(most_threads(kernel)) {
            return refuse(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "more threads than its launch bound");
        }
        if i64::from(shared) > i64::from(*allowed) {
            return refuse(CUDA_ERROR_INVALID_VALUE, "more shared memory than was asked for");
        }
        if arguments.is_null() || !extra.is_null() {
            return refuse(CUDA_ERROR_INVALID_VALUE, "arguments are not given one by one");
        }
        let parameters = parameters(kernel).ok_or(CUDA_ERROR_NOT_FOUND)?;
        let mut values = Vec::new();
        for (i, parameter) in parameters.iter().enumerate() {
            match arguments.get(i).and_then(|argument| argument.copy(parameter.bytes)) {
                Some(value) => values.push(value),
                None => return refuse(CUDA_ERROR_INVALID_VALUE, "an argument is nowhere"),
            }
        }
        let arguments = Arguments::new(parameters, &values);
        let launch = Launch { kernel: kernel.clone(), module: *module, grid, arguments };
        start(world, stream, Work::Kernel(Arc::new(launch)))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuTensorMapEncodeTiled(
    out: Out<sys::TensorMap>,
    element: u32,
    rank: u32,
    base: u64,
    extents: In<u64>,
    strides: In<u64>,
    tile: In<u32>,
    steps: In<u32>,
    interleave: u32,
    swizzle: u32,
    _promotion: u32,
    fill: u32,
) -> CUresult {
    anywhere(|world| {
        if world.settings.capability < 90 {
            return because(
                CUDA_ERROR_NOT_SUPPORTED,
                "a device before compute capability 9.0 has no tensor maps",
            );
        }
        let element_bytes = match element {
            e if e == Element::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 as u32 => 2,
            e if e == Element::CU_TENSOR_MAP_DATA_TYPE_FLOAT32 as u32 => 4,
            other => return because(CUDA_ERROR_NOT_SUPPORTED, &format!("a tensor map of type {other}")),
        };
        if !(2..=3).contains(&rank)
            || interleave != 0
            || fill != 0
            || swizzle > 3
            || !out.address().is_multiple_of(64)
        {
            return because(CUDA_ERROR_INVALID_VALUE, "a tensor map that the emulation does not have");
        }
        let dimensions = rank as usize;
        let mut spec = sys::TensorMapSpec {
            base,
            extents: [1; 3],
            strides: [0; 2],
            tile: [1; 3],
            rank,
            element_bytes,
            swizzle_bytes: [0, 32, 64, 128][swizzle as usize],
        };
        for d in 0..dimensions {
            spec.extents[d] = extents.get(d).ok_or(CUDA_ERROR_INVALID_VALUE)?;
            spec.tile[d] = tile.get(d).ok_or(CUDA_ERROR_INVALID_VALUE)?;
            if d > 0 {
                spec.strides[d - 1] = strides.get(d - 1).ok_or(CUDA_ERROR_INVALID_VALUE)?;
            }
            if steps.get(d) != Some(1) {
                return because(CUDA_ERROR_NOT_SUPPORTED, "a tensor map that leaves elements out");
            }
        }
        match Emulation::encode(&spec) {
            Err(reason) => because(CUDA_ERROR_INVALID_VALUE, &reason),
            Ok(map) => stored(out.put(map)),
        }
    })
}

// ---- graphs ---------------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: usize, mode: u32) -> CUresult {
    in_context(|world| {
        let mode = match mode {
            0 => CaptureMode::Global,
            1 => CaptureMode::ThreadLocal,
            2 => CaptureMode::Relaxed,
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        };
        if stream <= 1 {
            return because(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a capture of the legacy stream");
        }
        let known = world.stream(stream)?;
        if known.capture.is_some() {
            return Err(CUDA_ERROR_ILLEGAL_STATE);
        }
        let thread = std::thread::current().id();
        known.capture = Some(Capture { mode, thread, work: Vec::new(), invalid: false });
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamEndCapture(stream: usize, out: Out<usize>) -> CUresult {
    in_context(|world| {
        let known = world.stream(stream)?;
        let capture = known.capture.take().ok_or(CUDA_ERROR_ILLEGAL_STATE)?;
        if capture.mode != CaptureMode::Relaxed && capture.thread != std::thread::current().id() {
            known.capture = Some(capture);
            return Err(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
        }
        if capture.invalid {
            _ = out.put(0);
            return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        }
        let handle = world.handle();
        world.graphs.insert(handle, Arc::new(capture.work));
        stored(out.put(handle))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamIsCapturing(stream: usize, out: Out<u32>) -> CUresult {
    in_context(|world| {
        let status =
            world.stream(stream)?.capture.as_ref().map_or(0, |capture| 1 + u32::from(capture.invalid));
        stored(out.put(status))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithFlags(out: Out<usize>, graph: usize, flags: u64) -> CUresult {
    in_context(|world| {
        let graph = world.graphs.get(&graph).ok_or(CUDA_ERROR_INVALID_HANDLE)?.clone();
        // Free on launch, and priorities of nodes; launches from the device are not for such graphs.
        if flags & !(1 | 8) != 0 {
            return because(CUDA_ERROR_INVALID_VALUE, &format!("a graph with flags {flags}"));
        }
        let handle = world.handle();
        world.executables.insert(handle, graph);
        stored(out.put(handle))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(executable: usize, stream: usize) -> CUresult {
    in_context(|world| {
        let graph = world.executables.get(&executable).ok_or(CUDA_ERROR_INVALID_HANDLE)?.clone();
        start(world, stream, Work::Graph(graph))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(executable: usize, stream: usize) -> CUresult {
    in_context(|world| {
        world.stream(stream)?;
        world.executables.get(&executable).map(|_| ()).ok_or(CUDA_ERROR_INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(executable: usize) -> CUresult {
    in_context(|world| world.executables.remove(&executable).map(|_| ()).ok_or(CUDA_ERROR_INVALID_HANDLE))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: usize) -> CUresult {
    in_context(|world| world.graphs.remove(&graph).map(|_| ()).ok_or(CUDA_ERROR_INVALID_HANDLE))
}

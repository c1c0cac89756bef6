//! Whether a device can be opened here: libraries, versions, capability.

use super::error::{explain, failed};
use super::libraries;
use cudarc::driver::CudaContext;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::{self, CUresult};
use duel_backend::{Error, Result};

/// The least compute capability that the kernels run on.
const LEAST_CAPABILITY: u32 = 80;

/// Whether there is an NVIDIA driver: libcuda is on the loader path.
pub fn has_driver() -> bool {
    // SAFETY: loads the driver's library by name; its initialisers ask nothing of who loads it.
    unsafe { sys::is_culib_present() }
}

/// Loads libcuda and libnvrtc. Every function of cudarc panics where its library is missing, so a program that calls
/// any before it opens a [`Device`](crate::Device) asks here first.
///
/// # Errors
/// When a library is missing: names all that are, and where they were looked for.
pub fn load_libraries() -> Result<()> {
    let mut missing = Vec::new();
    if !has_driver() {
        missing.push(
            "libcuda, which comes with the NVIDIA driver, is not on the loader path (LD_LIBRARY_PATH, ldconfig)"
                .to_string(),
        );
    }
    missing.extend(libraries::NVRTC.load().err().map(|e| e.to_string()));
    if missing.is_empty() { Ok(()) } else { Err(Error::NoDevice(missing.join("; "))) }
}

/// How many devices the driver shows.
///
/// # Errors
/// As [`load_libraries`], or the driver does not start.
pub fn devices() -> Result<usize> {
    load_libraries()?;
    CudaContext::device_count().map(|count| count.unsigned_abs() as usize).map_err(explain_init)
}

/// What names the device of this number among all in the world: its UUID.
///
/// # Errors
/// As [`devices`], or there is no such device.
pub fn device_id(device: usize) -> Result<[u8; 16]> {
    load_libraries()?;
    let context = CudaContext::new(device).map_err(explain_init)?;
    let id = context.uuid().map_err(|e| failed(&format!("the name of device {device}"), e))?;
    Ok(id.bytes.map(|byte| byte as u8))
}

/// Why `cuInit` failed, with what to look at.
pub(super) fn explain_init(error: DriverError) -> Error {
    let hint = match error.0 {
        CUresult::CUDA_ERROR_NO_DEVICE => {
            "the NVIDIA driver is here, but it sees no device; CUDA_VISIBLE_DEVICES may hide it"
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "libcuda and the driver of the kernel are of two versions"
        }
        _ => "the NVIDIA driver does not start",
    };
    Error::NoDevice(format!("{hint}: {}", explain(error)))
}

/// # Errors
/// When the driver is of an older CUDA than the compiler, whose code it then does not load ("CUDA Compatibility",
/// NVIDIA: code runs on drivers of its own major version and later ones). `driver` is `1000 * major + 10 * minor`.
pub(super) fn check_versions(driver: i32, [major, minor]: [i32; 2]) -> Result<()> {
    if driver / 1000 >= major {
        return Ok(());
    }
    Err(Error::NoDevice(format!(
        "the driver is of CUDA {}.{}, and libnvrtc of CUDA {major}.{minor}: a newer driver is needed",
        driver / 1000,
        driver % 1000 / 10
    )))
}

/// # Errors
/// When the kernels do not run on such a device.
pub(super) fn check_capability(name: &str, capability: u32) -> Result<()> {
    if capability >= LEAST_CAPABILITY {
        return Ok(());
    }
    Err(Error::NoDevice(format!(
        "{name} is of compute capability {}.{}; the kernels need 8.0 or more",
        capability / 10,
        capability % 10
    )))
}

/// The CUDA that the driver is of: `1000 * major + 10 * minor`.
pub(super) fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the library is present (`load_libraries`), and the number lives through the call.
    let done = unsafe { sys::cuDriverGetVersion(&mut version) };
    done.result().map_err(|e| failed("the version of the NVIDIA driver", e))?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_older_than_the_compiler_is_refused() {
        assert!(check_versions(13000, [13, 0]).is_ok());
        assert!(check_versions(13000, [13, 1]).is_ok());
        assert!(check_versions(13010, [12, 8]).is_ok());
        let message = check_versions(12080, [13, 0]).expect_err("an older major version").to_string();
        assert!(message.contains("the driver is of CUDA 12.8, and libnvrtc of CUDA 13.0"), "{message}");
    }

    #[test]
    fn a_device_before_8_0_is_refused() {
        assert!(check_capability("A100", 80).is_ok());
        let message = check_capability("Tesla T4", 75).expect_err("an older device").to_string();
        assert!(message.contains("Tesla T4 is of compute capability 7.5"), "{message}");
    }
}

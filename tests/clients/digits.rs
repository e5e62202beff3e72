// SPDX-License-Identifier: Apache-2.0
// Runs a prepared job (tests/serve/jobs.py) on an Ethos-U node in Rust: digits JOB OUTPUT [THREADS]
// The standard library for files and threads, system calls for the rest; no crate and no unsafe ABI but libc's.
use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::fs::{File, OpenOptions};
use std::io::{Error, Result, Write};
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::{env, fs, ptr, slice, thread};

extern "C" {
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn mmap(at: *mut c_void, length: usize, prot: c_int, flags: c_int, fd: c_int, offset: c_long) -> *mut c_void;
    fn munmap(at: *mut c_void, length: usize) -> c_int;
}

const READ_WRITE: c_int = 1 | 2;
const SHARED: c_int = 1;

#[repr(C)]
struct GemClose { handle: u32, pad: u32 }
#[repr(C)]
struct NpuInfo { id: u32, config: u32, sram_size: u32 }
#[repr(C)]
struct DevQuery { kind: u32, size: u32, pointer: u64 }
#[repr(C)]
struct BoCreate { size: u64, flags: u32, handle: u32 }
#[repr(C)]
struct BoWait { handle: u32, pad: u32, timeout_ns: i64 }
#[repr(C)]
struct BoMmapOffset { handle: u32, pad: u32, offset: u64 }
#[repr(C)]
struct Cmdstream { size: u32, flags: u32, data: u64, handle: u32, pad: u32 }
#[repr(C)]
struct Job { cmd_bo: u32, sram_size: u32, regions: [u32; 8] }
#[repr(C)]
struct Submit { jobs: u64, count: u32, pad: u32 }

/// A request number: direction bits, size of the argument, type 'd', number.
const fn request<T>(direction: c_ulong, number: c_ulong) -> c_ulong {
    direction << 30 | (size_of::<T>() as c_ulong) << 16 | (b'd' as c_ulong) << 8 | number
}

fn call<T>(node: &File, direction: c_ulong, number: c_ulong, argument: &mut T) -> Result<()> {
    match unsafe { ioctl(node.as_raw_fd(), request::<T>(direction, number), argument as *mut T) } {
        0.. => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// A buffer object and its mapping, both gone when it is dropped.
struct Buffer<'a> { node: &'a File, handle: u32, memory: *mut u8, length: usize }

impl<'a> Buffer<'a> {
    fn new(node: &'a File, length: usize) -> Result<Self> {
        let mut made = BoCreate { size: length as u64, flags: 0, handle: 0 };
        call(node, 3, 0x41, &mut made)?;
        let mut place = BoMmapOffset { handle: made.handle, pad: 0, offset: 0 };
        call(node, 3, 0x43, &mut place)?;
        let memory = unsafe {
            mmap(ptr::null_mut(), length, READ_WRITE, SHARED, node.as_raw_fd(), place.offset as c_long)
        };
        if memory as isize == -1 {
            return Err(Error::last_os_error());
        }
        Ok(Buffer { node, handle: made.handle, memory: memory.cast(), length })
    }

    fn bytes(&mut self) -> &mut [u8] {
        unsafe { slice::from_raw_parts_mut(self.memory, self.length) }
    }

    fn wait(&self) -> Result<()> {
        call(self.node, 3, 0x42, &mut BoWait { handle: self.handle, pad: 0, timeout_ns: i64::MAX })
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        unsafe { munmap(self.memory.cast(), self.length) };
        call(self.node, 1, 0x09, &mut GemClose { handle: self.handle, pad: 0 }).expect("GEM_CLOSE");
    }
}

/// The job file: eight u32, then command stream, constants, input.
struct Prepared { stream: Vec<u8>, constants: Vec<u8>, input: Vec<u8>, arena: usize, sram: u32, output: usize, at: [usize; 2] }

fn prepared(path: &str) -> Result<Prepared> {
    let content = fs::read(path)?;
    let word = |i: usize| u32::from_le_bytes(content[4 * i..4 * i + 4].try_into().unwrap());
    let (stream, constants, input) = (word(0) as usize, word(1) as usize, word(4) as usize);
    let (first, rest) = content[32..].split_at(stream);
    let (second, third) = rest.split_at(constants);
    assert_eq!(third.len(), input);
    Ok(Prepared {
        stream: first.to_vec(), constants: second.to_vec(), input: third.to_vec(), arena: word(2) as usize,
        sram: word(3), output: word(5) as usize, at: [word(6) as usize, word(7) as usize],
    })
}

fn infer(node: &File, work: &Prepared) -> Result<Vec<u8>> {
    let mut constants = Buffer::new(node, work.constants.len())?;
    constants.bytes().copy_from_slice(&work.constants);
    let mut arena = Buffer::new(node, work.arena)?;
    arena.bytes()[work.at[0]..][..work.input.len()].copy_from_slice(&work.input);
    let mut stream = Cmdstream {
        size: work.stream.len() as u32, flags: 0, data: work.stream.as_ptr() as u64, handle: 0, pad: 0,
    };
    call(node, 3, 0x44, &mut stream)?;
    let mut regions = [0; 8];
    regions[..2].copy_from_slice(&[constants.handle, arena.handle]);
    let mut job = Job { cmd_bo: stream.handle, sram_size: work.sram, regions };
    call(node, 3, 0x45, &mut Submit { jobs: &mut job as *mut Job as u64, count: 1, pad: 0 })?;
    call(node, 1, 0x09, &mut GemClose { handle: stream.handle, pad: 0 })?;
    arena.wait()?;
    Ok(arena.bytes()[work.at[1]..][..work.output].to_vec())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let threads = arguments.get(3).map_or(1, |count| count.parse().expect("a number of threads"));
    let work = prepared(&arguments[1])?;
    let node = OpenOptions::new().read(true).write(true).open("/dev/accel/accel0")?;
    let mut info = NpuInfo { id: 0, config: 0, sram_size: 0 };
    call(&node, 3, 0x40, &mut DevQuery { kind: 0, size: 12, pointer: &mut info as *mut NpuInfo as u64 })?;
    assert_eq!(info.id >> 28, 1, "an Ethos-U65");
    let outputs: Vec<Vec<u8>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| infer(&node, &work))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Result<_>>()
    })?;
    let mut file = File::create(&arguments[2])?;
    outputs.iter().try_for_each(|output| file.write_all(output))
}

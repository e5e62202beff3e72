// SPDX-License-Identifier: Apache-2.0
// Runs a prepared job (see mesa_like.c) from Rust, on several threads: job JOB OUTPUT THREADS
use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::{env, ptr, slice, thread};

extern "C" {
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn mmap(at: *mut c_void, size: usize, prot: c_int, flags: c_int, fd: c_int, offset: c_long) -> *mut c_void;
    fn munmap(at: *mut c_void, size: usize) -> c_int;
}

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
#[repr(C)]
struct GemClose { handle: u32, pad: u32 }

fn call<T>(fd: c_int, request: c_ulong, argument: &mut T) {
    let result = unsafe { ioctl(fd, request, argument as *mut T) };
    assert_eq!(result, 0, "{:#x}: {}", request, std::io::Error::last_os_error());
}

fn create(fd: c_int, size: usize) -> (u32, &'static mut [u8]) {
    let mut bo = BoCreate { size: size as u64, flags: 0, handle: 0 };
    call(fd, 0xC010_6441, &mut bo);
    let mut place = BoMmapOffset { handle: bo.handle, pad: 0, offset: 0 };
    call(fd, 0xC010_6443, &mut place);
    let memory = unsafe { mmap(ptr::null_mut(), size, 3, 1, fd, place.offset as c_long) };
    assert_ne!(memory as isize, -1);
    (bo.handle, unsafe { slice::from_raw_parts_mut(memory as *mut u8, size) })
}

fn run(fd: c_int, content: &[u8]) -> Vec<u8> {
    let head: Vec<usize> =
        content[..32].chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()) as usize).collect();
    let (stream, rest) = content[32..].split_at(head[0]);
    let (constants, input) = rest.split_at(head[1]);
    let mut command = Cmdstream { size: head[0] as u32, flags: 0, data: stream.as_ptr() as u64, handle: 0, pad: 0 };
    call(fd, 0xC018_6444, &mut command);
    let mut handles = vec![command.handle];
    let mut constants_bo = 0;
    if !constants.is_empty() {
        let (handle, memory) = create(fd, constants.len());
        memory.copy_from_slice(constants);
        constants_bo = handle;
        handles.push(handle);
    }
    let (arena_bo, arena) = create(fd, head[2]);
    handles.push(arena_bo);
    arena[head[6]..head[6] + head[4]].copy_from_slice(input);
    let job = Job { cmd_bo: command.handle, sram_size: head[3] as u32, regions: [constants_bo, arena_bo, 0, 0, 0, 0, 0, 0] };
    call(fd, 0xC010_6445, &mut Submit { jobs: &job as *const Job as u64, count: 1, pad: 0 });
    call(fd, 0xC010_6442, &mut BoWait { handle: arena_bo, pad: 0, timeout_ns: i64::MAX });
    let result = arena[head[7]..head[7] + head[5]].to_vec();
    unsafe { munmap(arena.as_mut_ptr() as *mut c_void, arena.len()) };
    for handle in handles {
        call(fd, 0x4008_6409, &mut GemClose { handle, pad: 0 });
    }
    result
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let node = Arc::new(OpenOptions::new().read(true).write(true).open("/dev/accel/accel0").expect("no node"));
    let content = Arc::new(fs::read(&arguments[1]).unwrap());
    let threads: Vec<_> = (0..arguments[3].parse().unwrap())
        .map(|_| {
            let (node, content) = (node.clone(), content.clone());
            thread::spawn(move || run(node.as_raw_fd(), &content))
        })
        .collect();
    let results: Vec<u8> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    fs::write(&arguments[2], results).unwrap();
}

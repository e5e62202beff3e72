// SPDX-License-Identifier: Apache-2.0

// Runs a prepared job (see mesa_like.c) from Go, in several goroutines: job JOB OUTPUT GOROUTINES
package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"
)

type boCreate struct {
	size          uint64
	flags, handle uint32
}
type boWait struct {
	handle, pad uint32
	timeoutNs   int64
}
type boMmapOffset struct {
	handle, pad uint32
	offset      uint64
}
type cmdstream struct {
	size, flags uint32
	data        uint64
	handle, pad uint32
}
type job struct {
	cmdBo, sramSize uint32
	regions         [8]uint32
}
type submit struct {
	jobs       uint64
	count, pad uint32
}
type gemClose struct{ handle, pad uint32 }

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func call(fd int, request uintptr, argument unsafe.Pointer) {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(argument))
	if errno != 0 {
		panic(fmt.Sprintf("%#x: %v", request, errno))
	}
}

func create(fd int, size int) (uint32, []byte) {
	bo := boCreate{size: uint64(size)}
	call(fd, 0xC0106441, unsafe.Pointer(&bo))
	place := boMmapOffset{handle: bo.handle}
	call(fd, 0xC0106443, unsafe.Pointer(&place))
	protection := syscall.PROT_READ | syscall.PROT_WRITE
	memory, err := syscall.Mmap(fd, int64(place.offset), size, protection, syscall.MAP_SHARED)
	check(err)
	return bo.handle, memory
}

// Go moves stacks, and with them what an address in another struct leads to.
//
//go:noinline
func onHeap() *job { return new(job) }

func run(fd int, content []byte) []byte {
	var head [8]int
	for index := range head {
		head[index] = int(binary.LittleEndian.Uint32(content[4*index:]))
	}
	stream, rest := content[32:32+head[0]], content[32+head[0]:]
	constants, input := rest[:head[1]], rest[head[1]:]
	command := cmdstream{size: uint32(head[0]), data: uint64(uintptr(unsafe.Pointer(&stream[0])))}
	call(fd, 0xC0186444, unsafe.Pointer(&command))
	runtime.KeepAlive(stream)
	handles := []uint32{command.handle}
	var constantsBo uint32
	if len(constants) > 0 {
		handle, memory := create(fd, len(constants))
		copy(memory, constants)
		check(syscall.Munmap(memory))
		constantsBo = handle
		handles = append(handles, handle)
	}
	arenaBo, arena := create(fd, head[2])
	handles = append(handles, arenaBo)
	copy(arena[head[6]:head[6]+head[4]], input)
	work := onHeap()
	work.cmdBo, work.sramSize = command.handle, uint32(head[3])
	work.regions[0], work.regions[1] = constantsBo, arenaBo
	call(fd, 0xC0106445, unsafe.Pointer(&submit{jobs: uint64(uintptr(unsafe.Pointer(work))), count: 1}))
	runtime.KeepAlive(work)
	call(fd, 0xC0106442, unsafe.Pointer(&boWait{handle: arenaBo, timeoutNs: math.MaxInt64}))
	result := append([]byte{}, arena[head[7]:head[7]+head[5]]...)
	check(syscall.Munmap(arena))
	for _, handle := range handles {
		call(fd, 0x40086409, unsafe.Pointer(&gemClose{handle: handle}))
	}
	return result
}

func main() {
	node, err := os.OpenFile("/dev/accel/accel0", os.O_RDWR, 0)
	check(err)
	content, err := os.ReadFile(os.Args[1])
	check(err)
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	fd := int(node.Fd())
	results := make([][]byte, count)
	var running sync.WaitGroup
	for index := range results {
		running.Add(1)
		go func(index int) {
			defer running.Done()
			results[index] = run(fd, content)
		}(index)
	}
	running.Wait()
	runtime.KeepAlive(node)
	var all []byte
	for _, result := range results {
		all = append(all, result...)
	}
	check(os.WriteFile(os.Args[2], all, 0o644))
}

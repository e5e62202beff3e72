// SPDX-License-Identifier: Apache-2.0
// The ioctls of the accel node that the clients use, from the project's facts: no kernel header is needed.
#include <stdint.h>

#define IOWR(nr, size) (0xC0000000u | (uint32_t)(size) << 16 | 0x6400u | (nr))
#define IOW(nr, size) (0x40000000u | (uint32_t)(size) << 16 | 0x6400u | (nr))

struct version { int32_t major, minor, patch; uint64_t name_len, name, date_len, date, desc_len, desc; };
struct gem_close { uint32_t handle, pad; };
struct get_cap { uint64_t capability, value; };
struct dev_query { uint32_t type, size; uint64_t pointer; };
struct npu_info { uint32_t id, config, sram_size; };
struct bo_create { uint64_t size; uint32_t flags, handle; };
struct bo_wait { uint32_t handle, pad; int64_t timeout_ns; };
struct bo_mmap_offset { uint32_t handle, pad; uint64_t offset; };
struct cmdstream { uint32_t size, flags; uint64_t data; uint32_t handle, pad; };
struct job { uint32_t cmd_bo, sram_size, regions[8]; };
struct submit { uint64_t jobs; uint32_t count, pad; };

#define VERSION IOWR(0x00, sizeof(struct version))
#define GEM_CLOSE IOW(0x09, sizeof(struct gem_close))
#define GET_CAP IOWR(0x0c, sizeof(struct get_cap))
#define DEV_QUERY IOWR(0x40, sizeof(struct dev_query))
#define BO_CREATE IOWR(0x41, sizeof(struct bo_create))
#define BO_WAIT IOWR(0x42, sizeof(struct bo_wait))
#define BO_MMAP_OFFSET IOWR(0x43, sizeof(struct bo_mmap_offset))
#define CMDSTREAM IOWR(0x44, sizeof(struct cmdstream))
#define SUBMIT IOWR(0x45, sizeof(struct submit))
#define FOREVER INT64_MAX

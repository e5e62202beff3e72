# SPDX-License-Identifier: Apache-2.0
"""The cases of the kernel's own unit tests, by their names there, for what has a counterpart here.

Not here, as the core has nothing they could test: drm_gem_shmem's madvise and purge, drm_mm's debug, reserve,
replace, insert_range, align*, evict*, topdown, highest, color*, drm_sched's priorities and modify_sched, and
drm_exec but for its duplicates (tests/drivers/test_drm_exec.py), because one lock guards a device.
"""

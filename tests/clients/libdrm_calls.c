// SPDX-License-Identifier: Apache-2.0
// What libdrm's own functions make of the node.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xf86drm.h>

#define BO_CREATE 0xC0106441ul
struct bo_create { uint64_t size; uint32_t flags, handle; };

int main(void) {
    int fd = open("/dev/accel/accel0", O_RDWR | O_CLOEXEC);
    drmVersionPtr version = drmGetVersion(fd);
    if (!version) { perror("drmGetVersion"); return 1; }
    printf("%s|%s|%s|%d.%d.%d\n", version->name, version->date, version->desc, version->version_major,
           version->version_minor, version->version_patchlevel);
    drmFreeVersion(version);
    uint64_t value = 9;
    printf("PRIME %d", drmGetCap(fd, DRM_CAP_PRIME, &value));
    printf(" %llu\n", (unsigned long long)value);
    int dumb = drmGetCap(fd, DRM_CAP_DUMB_BUFFER, &value);
    printf("DUMB_BUFFER %d %d\n", dumb, errno == EOPNOTSUPP);
    printf("master %d, node type %d, render name %d\n", drmIsMaster(fd), drmGetNodeTypeFromFd(fd),
           drmGetRenderDeviceNameFromFd(fd) != NULL);
    struct bo_create bo = {.size = 4096};
    int created = drmIoctl(fd, BO_CREATE, &bo);
    printf("BO_CREATE %d handle %u\n", created, bo.handle);
    int prime = -1;
    int failed = drmPrimeHandleToFD(fd, bo.handle, DRM_CLOEXEC | DRM_RDWR, &prime);
    if (failed) {
        printf("PRIME: %s\n", strerror(errno));
    } else {
        uint32_t again = 0;
        int imported = drmPrimeFDToHandle(fd, prime, &again);
        printf("PRIME: size %ld, import %d, same handle %d\n", (long)lseek(prime, 0, SEEK_END), imported,
               again == bo.handle);
        close(prime);
    }
    struct drm_gem_close done = {.handle = bo.handle};
    printf("GEM_CLOSE %d\n", drmIoctl(fd, DRM_IOCTL_GEM_CLOSE, &done));
    drmDevicePtr devices[8];
    printf("devices %d\n", drmGetDevices2(0, devices, 8));
    return close(fd);
}

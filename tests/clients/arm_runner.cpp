// SPDX-License-Identifier: Apache-2.0
// A client of /dev/ethosu<N> that makes its calls in the order of Arm's library and runner (facts, ethosu-linux.md
// §3.3), in the numbers of one generation of the header; our own code.
//
//   arm_runner GENERATION NODE NETWORK IFM OFM [REPEAT]
//
// GENERATION is arm, nxp (arena first, then buffers), nxp-arena (all tensors in the arena) or staging (invoked again and
// again). NETWORK is a .tflite, or @N for network N of the firmware. IFM holds REPEAT inputs one after the other; OFM gets
// as many outputs. All inferences are started before the first is waited for, but with staging.
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <memory>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr uint32_t kFds = 16;
constexpr size_t kArena = 4 << 20;
enum Status { kOk = 0, kError, kRunning };

template <int kEvents> struct PmuConfig { uint32_t events[kEvents], cycles; };
template <int kEvents> struct PmuCounts { uint32_t events[kEvents]; uint64_t cycles; };
template <int kEvents> struct Result {
    uint32_t status;
    PmuConfig<kEvents> config;
    PmuCounts<kEvents> counts;
};
struct Capabilities { uint32_t id[7], macs, command_stream, custom_dma, driver[3]; };
struct Window { uint32_t offset, size; };
struct NetworkCreate { uint32_t type, fd; };
struct ArmInfo { char desc[32]; uint32_t inputs, input_size[kFds], outputs, output_size[kFds]; };
struct NxpTensors { uint32_t count, size[kFds], types[kFds], offset[kFds], dims[kFds], shapes[kFds][8]; };
struct NxpInfo { char desc[32]; uint32_t is_vela; NxpTensors inputs, outputs; };
struct Fds { uint32_t inputs, input[kFds], outputs, output[kFds]; };
struct ArmInference { Fds fds; PmuConfig<8> pmu; };
struct NxpInference { Fds fds; uint32_t type; PmuConfig<4> pmu; };
struct Layout { uint32_t flash, arena, inputs, input[kFds], input_size[kFds], outputs, output[kFds], output_size[kFds]; };
struct StagingInference { Fds fds; Layout layout; uint32_t type; PmuConfig<4> pmu; };

template <typename T> constexpr uint32_t Number(uint32_t nr) { return 0x80000100u | uint32_t(sizeof(T)) << 16 | nr; }

void Check(bool good, const std::string &what) {
    if (!good) throw std::runtime_error(what + ": " + strerror(errno));
}

// A descriptor, and ioctls on it.
class File {
public:
    explicit File(int fd) : fd_(fd) { Check(fd >= 0, "descriptor"); }
    File(const File &) = delete;
    ~File() { close(fd_); }
    int fd() const { return fd_; }
    int Call(uint32_t number, void *argument = nullptr) const {
        int result = ioctl(fd_, number, argument);
        Check(result >= 0, "ioctl " + std::to_string(number));
        return result;
    }

private:
    int fd_;
};

class Buffer {
public:
    Buffer(const File &device, uint32_t capacity) : file_(device.Call(0x80040110, &capacity)), capacity_(capacity) {
        data_ = mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_SHARED, file_.fd(), 0);
        Check(data_ != MAP_FAILED, "mmap");
    }
    ~Buffer() { munmap(data_, capacity_); }
    void Resize(uint32_t size) {
        Window window{0, size};
        file_.Call(0x80080111, &window);
    }
    Window Valid() const {
        Window window{};
        file_.Call(0x40080112, &window);
        return window;
    }
    char *Data() const { return static_cast<char *>(data_) + Valid().offset; }
    int fd() const { return file_.fd(); }

private:
    File file_;
    uint32_t capacity_;
    void *data_;
};

std::string Read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    Check(bool(file), path);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::unique_ptr<Buffer> Filled(const File &device, const std::string &content) {
    auto buffer = std::make_unique<Buffer>(device, uint32_t(content.size()));
    buffer->Resize(uint32_t(content.size()));
    memcpy(buffer->Data(), content.data(), content.size());
    return buffer;
}

void Wait(const File &inference) {
    pollfd waiting{inference.fd(), POLLIN | POLLERR, 0};
    timespec patience{60, 0};
    Check(ppoll(&waiting, 1, &patience, nullptr) == 1, "ppoll");
}

template <int kEvents> void Finish(const File &inference) {
    Result<kEvents> result{};
    const uint32_t number = Number<Result<kEvents>>(0x31);
    inference.Call(number, &result);
    Wait(inference);
    inference.Call(number, &result);
    if (result.status != kOk) throw std::runtime_error("inference status " + std::to_string(result.status));
}

struct Started {
    std::vector<std::unique_ptr<Buffer>> buffers;
    std::unique_ptr<File> inference;
    std::vector<Buffer *> outputs;
    std::vector<uint32_t> offsets, sizes;
};

// What lies behind the counts is garbage in Arm's library too.
template <typename T> T Garbage() {
    T made;
    memset(&made, 0xA5, sizeof made);
    return made;
}

class Runner {
public:
    Runner(std::string generation, const char *node, const std::string &network)
        : generation_(std::move(generation)), device_(open(node, O_RDWR | O_NONBLOCK)) {
        device_.Call(0x100);
        device_.Call(0x101);
        Capabilities capabilities{};
        device_.Call(0x80340102, &capabilities);
        printf("macs %u\n", 1u << capabilities.macs);
        NetworkCreate create{2, 0};
        std::unique_ptr<Buffer> model;
        if (network[0] == '@') {
            create.fd = uint32_t(std::stoul(network.substr(1)));
        } else {
            model = Filled(device_, Read(network));
            create = {1, uint32_t(model->fd())};
        }
        network_ = std::make_unique<File>(device_.Call(0x80080120, &create));
        Describe();
    }

    size_t InputBytes() const {
        size_t sum = 0;
        for (uint32_t size : inputs_) sum += size;
        return sum;
    }

    Started Start(const std::string &input) {
        if (generation_ == "arm") return StartWith<ArmInference>(input, false);
        if (generation_ == "nxp") return StartWith<NxpInference>(input, true);
        return StartInArena(input);
    }

    std::string Finish(const Started &run) {
        if (generation_ == "arm") ::Finish<8>(*run.inference);
        else ::Finish<4>(*run.inference);
        std::string result;
        for (size_t i = 0; i < run.sizes.size(); ++i) {
            Buffer *buffer = run.outputs[i];
            if (run.offsets.empty()) {
                if (buffer->Valid().size != run.sizes[i]) throw std::runtime_error("an output has another size");
                result.append(buffer->Data(), run.sizes[i]);
            } else {
                result.append(buffer->Data() + run.offsets[i], run.sizes[i]);
            }
        }
        return result;
    }

    // The newer header: one inference, prepared once and invoked for each input.
    std::string Staged(const std::string &inputs) {
        Buffer arena(device_, kArena);
        auto create = Garbage<StagingInference>();
        create.fds = {1, {uint32_t(arena.fd())}, 0, {}};
        create.type = 0;
        create.pmu = {};
        create.layout = {};
        create.layout.inputs = uint32_t(inputs_.size());
        create.layout.outputs = uint32_t(outputs_.size());
        for (size_t i = 0; i < inputs_.size(); ++i) {
            create.layout.input[i] = info_.inputs.offset[i];
            create.layout.input_size[i] = inputs_[i];
        }
        for (size_t i = 0; i < outputs_.size(); ++i) {
            create.layout.output[i] = info_.outputs.offset[i];
            create.layout.output_size[i] = outputs_[i];
        }
        File inference(network_->Call(Number<StagingInference>(0x30), &create));
        std::string results;
        for (size_t at = 0; at < inputs.size(); at += InputBytes()) {
            Place(arena, inputs.substr(at, InputBytes()));
            Result<4> result{};
            inference.Call(Number<Result<4>>(0x33), &result);
            Wait(inference);
            inference.Call(Number<Result<4>>(0x31), &result);
            if (result.status != kOk) throw std::runtime_error("staging status " + std::to_string(result.status));
            for (size_t i = 0; i < outputs_.size(); ++i)
                results.append(arena.Data() + info_.outputs.offset[i], outputs_[i]);
        }
        return results;
    }

private:
    void Describe() {
        if (generation_ == "arm") {
            auto info = Garbage<ArmInfo>();
            network_->Call(Number<ArmInfo>(0x21), &info);
            inputs_.assign(info.input_size, info.input_size + info.inputs);
            outputs_.assign(info.output_size, info.output_size + info.outputs);
            return;
        }
        info_ = Garbage<NxpInfo>();
        network_->Call(Number<NxpInfo>(0x21), &info_);
        if (!info_.is_vela) throw std::runtime_error("the network is not Vela's");
        inputs_.assign(info_.inputs.size, info_.inputs.size + info_.inputs.count);
        outputs_.assign(info_.outputs.size, info_.outputs.size + info_.outputs.count);
    }

    template <typename Inference> Started StartWith(const std::string &input, bool arena) {
        Started run;
        auto create = Garbage<Inference>();
        create.pmu = {};
        create.fds.inputs = create.fds.outputs = 0;
        auto give = [&](std::unique_ptr<Buffer> buffer) {
            create.fds.input[create.fds.inputs++] = uint32_t(buffer->fd());
            run.buffers.push_back(std::move(buffer));
        };
        if (arena) give(std::make_unique<Buffer>(device_, kArena));
        size_t at = 0;
        for (uint32_t size : inputs_) {
            give(Filled(device_, input.substr(at, size)));
            at += size;
        }
        for (uint32_t size : outputs_) {
            auto buffer = std::make_unique<Buffer>(device_, size);
            create.fds.output[create.fds.outputs++] = uint32_t(buffer->fd());
            run.outputs.push_back(buffer.get());
            run.sizes.push_back(size);
            run.buffers.push_back(std::move(buffer));
        }
        run.inference = std::make_unique<File>(network_->Call(Number<Inference>(0x30), &create));
        return run;
    }

    Started StartInArena(const std::string &input) {
        Started run;
        auto arena = std::make_unique<Buffer>(device_, kArena);
        arena->Resize(kArena);
        Place(*arena, input);
        auto create = Garbage<NxpInference>();
        create.pmu = {};
        create.fds.inputs = 1;
        create.fds.input[0] = uint32_t(arena->fd());
        create.fds.outputs = 0;
        for (size_t i = 0; i < outputs_.size(); ++i) {
            run.outputs.push_back(arena.get());
            run.offsets.push_back(info_.outputs.offset[i]);
            run.sizes.push_back(outputs_[i]);
        }
        run.buffers.push_back(std::move(arena));
        run.inference = std::make_unique<File>(network_->Call(Number<NxpInference>(0x30), &create));
        return run;
    }

    void Place(const Buffer &arena, const std::string &input) const {
        size_t at = 0;
        for (size_t i = 0; i < inputs_.size(); ++i) {
            memcpy(arena.Data() + info_.inputs.offset[i], input.data() + at, inputs_[i]);
            at += inputs_[i];
        }
    }

    std::string generation_;
    File device_;
    std::unique_ptr<File> network_;
    std::vector<uint32_t> inputs_, outputs_;
    NxpInfo info_{};
};

} // namespace

int main(int argc, char **argv) try {
    if (argc < 6) {
        fprintf(stderr, "arm_runner GENERATION NODE NETWORK IFM OFM\n");
        return 2;
    }
    Runner runner(argv[1], argv[2], argv[3]);
    const std::string inputs = Read(argv[4]);
    std::string results;
    if (std::string(argv[1]) == "staging") {
        results = runner.Staged(inputs);
    } else {
        std::vector<Started> runs;
        for (size_t at = 0; at < inputs.size(); at += runner.InputBytes())
            runs.push_back(runner.Start(inputs.substr(at, runner.InputBytes())));
        for (const Started &run : runs) results += runner.Finish(run);
    }
    std::ofstream(argv[5], std::ios::binary) << results;
    return 0;
} catch (const std::exception &error) {
    fprintf(stderr, "%s\n", error.what());
    return 1;
}

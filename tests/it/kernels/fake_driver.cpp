// A stand-in for the driver's library and for NVRTC, strict where the real ones are merely undefined.
//
// Work is truly asynchronous here: what is queued in a stream happens only when somebody asks for it, or another stream waits for it,
// as late as is allowed: the first questions are answered by "not ready". With RESIDUA_FAKE_COPIES_EARLY the copy stream's uploads happen
// as early as is allowed. So memory that is used again too early, or read before its copy is over, gives wrong numbers.
// Calls without a current context, calls that a capture forbids and objects that outlive their context are refused.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>

namespace {

enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, DEVICE_UNAVAILABLE = 46, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
    NOT_FOUND = 500, NOT_READY = 600,
    ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901
};

typedef std::function<void()> Work;
// Time passes only by what is queued: a millisecond for each thing, half of one for a launch that overlaps the launch before it, which
// has to have the same carve-out of shared memory.
const int NO_LAUNCH = -2;
struct Graph { std::vector<Work> work; double milliseconds = 0; int carve_out = NO_LAUNCH; };  // of the launch it ends in
struct Stream { bool copies_early = false; std::deque<Work> queue; unsigned long long queued = 0, done = 0; bool capturing = false; Graph so_far, captured; };
struct Event { Stream* stream = nullptr; unsigned long long position = 0; double moment = 0; bool timed = false; };
struct Function { std::string name; size_t argument_bytes; int granted = 48 << 10, carve_out = -1; unsigned most_threads = 1024; bool real = false; };
struct Module { std::vector<Function*> functions; };

char the_context;
thread_local void* current = nullptr;
std::set<const void*> live;                  // streams, events, graphs, modules
std::map<const char*, size_t> device, pinned;  // first byte and size
int fault = SUCCESS;
bool hangs = false;
Stream* capturing = nullptr;

bool inside(const std::map<const char*, size_t>& memory, const void* first, size_t bytes) {
    auto after = memory.upper_bound((const char*)first);
    if (after == memory.begin()) return false;
    --after;
    return (const char*)first + bytes <= after->first + after->second;
}

[[noreturn]] void refuse(const char* why) {
    fprintf(stderr, "the fake driver refuses: %s\n", why);
    abort();
}

void run_until(Stream* stream, unsigned long long position) {
    while (stream->done < position && !hangs) {
        stream->queue.front()();
        if (hangs) return;
        stream->queue.pop_front();
        ++stream->done;
    }
}

int queue(Stream* stream, Work work, double milliseconds = 1, int carve_out = NO_LAUNCH) {
    if (!live.count(stream)) refuse("work is queued in a stream that is gone");
    Graph& graph = stream->capturing ? stream->captured : stream->so_far;
    graph.milliseconds += milliseconds;
    graph.carve_out = carve_out;
    if (stream->capturing) { graph.work.push_back(work); return SUCCESS; }
    stream->queue.push_back(work);
    ++stream->queued;
    return SUCCESS;
}

/// The answer to somebody who asks whether the stream is done up to a position.
int query(Stream* stream, unsigned long long position) {
    static unsigned questions = 0;
    if (stream->done < position && ++questions % 3) return NOT_READY;
    run_until(stream, position);
    return fault ? fault : stream->done < position ? NOT_READY : SUCCESS;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default"))) int
#define NEEDS_CONTEXT if (current != &the_context) return INVALID_CONTEXT; if (fault) return fault
#define NOT_IN_CAPTURE if (capturing) { capturing->captured = {}; return CAPTURE_UNSUPPORTED; }

EXPORT cuInit(unsigned) { return SUCCESS; }
EXPORT cuDriverGetVersion(int* version) { *version = 13000; return SUCCESS; }
EXPORT cuGetErrorName(int error, const char** text) {
    *text = error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_OF_THE_FAKE";
    return SUCCESS;
}
EXPORT cuGetErrorString(int error, const char** text) {
    *text = error == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : "the fake driver refuses";
    return SUCCESS;
}

EXPORT cuDeviceGetCount(int* count) { *count = 1; return SUCCESS; }
EXPORT cuDeviceGet(int* device, int ordinal) { *device = ordinal; return ordinal == 0 ? SUCCESS : INVALID_DEVICE; }
EXPORT cuDeviceGetName(char* name, int, int) { strcpy(name, "Fake GPU"); return SUCCESS; }
EXPORT cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = 1 << 30; return SUCCESS; }
EXPORT cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : attribute == 97 ? 232448 : -1;
    return SUCCESS;
}
// Where a file is named, the device is in exclusive-process mode: who holds a context locks the file.
EXPORT cuDevicePrimaryCtxRetain(void** context, int) {
    static int lock = -1;
    if (const char* exclusive = getenv("RESIDUA_FAKE_EXCLUSIVE")) {
        if (lock < 0) lock = open(exclusive, O_RDWR | O_CREAT, 0600);
        if (flock(lock, LOCK_EX | LOCK_NB)) return DEVICE_UNAVAILABLE;
    }
    *context = &the_context;
    return SUCCESS;
}
EXPORT cuDevicePrimaryCtxRelease_v2(int) {
    if (!live.empty() || !device.empty() || !pinned.empty()) refuse("objects outlive their context");
    return SUCCESS;
}
EXPORT cuCtxSetCurrent(void* context) { current = context; return SUCCESS; }
EXPORT cuMemGetInfo_v2(size_t* free, size_t* total) { NEEDS_CONTEXT; *free = 12 << 20; *total = 1 << 30; return SUCCESS; }

// A map of the stand-in holds what it was made of: rank, kind, address, then all that was asked for.
EXPORT cuTensorMapEncodeTiled(unsigned long long* map, int type, unsigned rank, void* address, const unsigned long long* extents,
                              const unsigned long long* strides, const unsigned* box, const unsigned* steps, int interleave,
                              int swizzle, int, int) {
    if ((size_t)map % 64 || type != 9 || interleave != 0 || swizzle != 3 || rank > 3) return INVALID_VALUE;
    unsigned long long words[16] = {rank, 0, (unsigned long long)address};
    for (unsigned d = 0; d < rank; d++) {
        words[3 + d] = extents[d];
        words[6 + d] = d ? strides[d - 1] : 2;
        words[9 + d] = box[d];
        words[12 + d] = steps[d];
    }
    memcpy(map, words, sizeof words);
    return SUCCESS;
}
EXPORT cuTensorMapEncodeIm2col(unsigned long long* map, int type, unsigned rank, void* address, const unsigned long long* extents,
                               const unsigned long long* strides, const int* lower, const int* upper, unsigned channels,
                               unsigned pixels, const unsigned* steps, int interleave, int swizzle, int, int) {
    if ((size_t)map % 64 || type != 9 || interleave != 0 || swizzle != 3 || rank != 4) return INVALID_VALUE;
    auto pair = [](int w, int h) { return (unsigned long long)(unsigned)w | (unsigned long long)(unsigned)h << 32; };
    unsigned long long words[16] = {rank, 1, (unsigned long long)address, extents[0], extents[1], extents[2], extents[3],
                                    strides[0], strides[1], strides[2], pair(lower[0], lower[1]), pair(upper[0], upper[1]),
                                    channels, pixels, pair(steps[0], steps[3]), pair(steps[1], steps[2])};
    memcpy(map, words, sizeof words);
    return SUCCESS;
}

EXPORT cuMemAlloc_v2(unsigned long long* address, size_t bytes) {
    NEEDS_CONTEXT; NOT_IN_CAPTURE;
    if (bytes == 0) return INVALID_VALUE;
    if (bytes > (1u << 30)) return OUT_OF_MEMORY;
    char* first = (char*)aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(first, 0xcd, bytes);
    device[first] = bytes;
    *address = (unsigned long long)first;
    return SUCCESS;
}
EXPORT cuMemFree_v2(unsigned long long address) {
    if (current != &the_context) refuse("memory is freed without a context");
    if (hangs) refuse("memory is freed on a device that hangs, which waits for ever");
    if (!device.erase((const char*)address)) refuse("memory is freed that is not there");
    free((void*)address);
    return fault;
}
EXPORT cuMemAllocHost_v2(void** first, size_t bytes) {
    NEEDS_CONTEXT; NOT_IN_CAPTURE;
    *first = malloc(bytes);
    memset(*first, 0xcd, bytes);
    pinned[(const char*)*first] = bytes;
    return SUCCESS;
}
EXPORT cuMemFreeHost(void* first) {
    if (!pinned.erase((const char*)first)) refuse("pinned memory is freed that is not there");
    free(first);
    return fault;
}
EXPORT cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, Stream* stream) {
    NEEDS_CONTEXT;
    if (!inside(device, (void*)to, bytes)) return INVALID_VALUE;
    return queue(stream, [=] { memset((void*)to, value, bytes); });
}
EXPORT cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, Stream* stream) {
    NEEDS_CONTEXT;
    if (!inside(device, (void*)to, bytes)) return INVALID_VALUE;
    if (!inside(pinned, from, bytes)) refuse("an upload that waits for pageable memory");
    const int queued = queue(stream, [=] {
        if (!inside(pinned, from, bytes)) refuse("pinned memory was freed before its copy");
        if (!inside(device, (void*)to, bytes)) refuse("device memory was freed before its copy");
        memcpy((void*)to, from, bytes);
    });
    if (stream->copies_early) run_until(stream, stream->queued);
    return queued;
}
EXPORT cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes, Stream* stream) {
    NEEDS_CONTEXT;
    auto both_inside = [=] { return inside(device, (void*)to, bytes) && inside(device, (void*)from, bytes); };
    if (!both_inside()) return INVALID_VALUE;
    return queue(stream, [=] {
        if (!both_inside()) refuse("device memory was freed before its copy");
        memcpy((void*)to, (void*)from, bytes);
    });
}
EXPORT cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, Stream* stream) {
    NEEDS_CONTEXT;
    if (!inside(device, (void*)from, bytes)) return INVALID_VALUE;
    return queue(stream, [=] { memcpy(to, (void*)from, bytes); });
}

EXPORT cuStreamCreate(Stream** stream, unsigned flags) {
    NEEDS_CONTEXT;
    if (flags != 1) refuse("a stream that waits for the default one");
    live.insert(*stream = new Stream);
    // A stream for copies alone, beside the one of the work, may be as far ahead as it can get.
    static unsigned streams = 0;
    (*stream)->copies_early = streams++ && getenv("RESIDUA_FAKE_COPIES_EARLY");
    return SUCCESS;
}
EXPORT cuStreamDestroy_v2(Stream* stream) {
    if (hangs) refuse("a stream is destroyed that hangs, which waits for ever");
    run_until(stream, stream->queued);
    if (!live.erase(stream)) refuse("a stream is destroyed twice");
    delete stream;
    return SUCCESS;
}
EXPORT cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    NEEDS_CONTEXT; NOT_IN_CAPTURE;
    if (!event->stream) return SUCCESS;
    return queue(stream, [other = event->stream, position = event->position] {
        if (!live.count(other)) refuse("a stream is waited for that is gone");
        run_until(other, position);
    }, 0);
}
EXPORT cuStreamQuery(Stream* stream) {
    NEEDS_CONTEXT; NOT_IN_CAPTURE;
    return query(stream, stream->queued);
}
EXPORT cuEventCreate(Event** event, unsigned flags) {
    NEEDS_CONTEXT;
    live.insert(*event = new Event);
    (*event)->timed = flags == 0;
    return SUCCESS;
}
EXPORT cuEventDestroy_v2(Event* event) {
    if (!live.erase(event)) refuse("an event is destroyed twice");
    delete event;
    return SUCCESS;
}
EXPORT cuEventRecord(Event* event, Stream* stream) {
    NEEDS_CONTEXT;
    event->stream = stream;
    event->position = stream->queued;
    event->moment = stream->so_far.milliseconds;
    return SUCCESS;
}
EXPORT cuEventQuery(Event* event) {
    NEEDS_CONTEXT;
    return event->stream ? query(event->stream, event->position) : SUCCESS;
}
EXPORT cuEventElapsedTime_v2(float* milliseconds, Event* from, Event* to) {
    NEEDS_CONTEXT;
    if (!from->timed || !to->timed) return INVALID_VALUE;
    *milliseconds = float(to->moment - from->moment);
    return SUCCESS;
}

EXPORT cuStreamBeginCapture_v2(Stream* stream, int mode) {
    NEEDS_CONTEXT; NOT_IN_CAPTURE;
    if (mode != 1) refuse("a capture that other threads would break");
    capturing = stream;
    stream->capturing = true;
    return SUCCESS;
}
EXPORT cuStreamEndCapture(Stream* stream, Graph** graph) {
    if (!stream->capturing) refuse("a capture is ended that was not begun");
    stream->capturing = false;
    capturing = nullptr;
    live.insert(*graph = new Graph(std::move(stream->captured)));
    stream->captured = {};
    return SUCCESS;
}
EXPORT cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) {
    NEEDS_CONTEXT; NOT_IN_CAPTURE;
    live.insert(*executable = new Graph(*graph));
    return SUCCESS;
}
EXPORT cuGraphLaunch(Graph* graph, Stream* stream) {
    NEEDS_CONTEXT; NOT_IN_CAPTURE;
    return queue(stream, [=] {
        if (!live.count(graph)) refuse("a graph was destroyed before it ran");
        for (auto& work : graph->work) work();
    }, graph->milliseconds);
}
static int destroy(Graph* graph) {
    if (!live.erase(graph)) refuse("a graph is destroyed twice");
    delete graph;
    return SUCCESS;
}
EXPORT cuGraphExecDestroy(Graph* graph) { return destroy(graph); }
EXPORT cuGraphDestroy(Graph* graph) { return destroy(graph); }

// A module is either the five letters "cubin", and then has the kernels `add` (y[i] += x for n numbers), `fault`, `hang`, and
// `two`, which takes two arguments; or real machine code, whose kernels are not run, but launched with what they ask for.
struct Add { float* y; unsigned long long n; float x; int unused; };

template <class T>
static T number(const char* image, size_t offset) {
    T value;
    memcpy(&value, image + offset, sizeof value);
    return value;
}

// The kernels of a cubin: an ELF file with a section `.nv.info.NAME` for each, of records (format, attribute, two bytes of
// size or value, then as many bytes of value). Attribute 0x17 describes an argument: index, ordinal and
// offset, which need not be zero where an argument is aligned more than the first place is, and flags with the size above bit
// 18; 0x05 holds the most threads of a block in three numbers.
static std::vector<Function*> kernels_of(const char* image) {
    const size_t table = number<uint64_t>(image, 40), entry = number<uint16_t>(image, 58);
    const size_t sections = number<uint16_t>(image, 60), names = number<uint16_t>(image, 62);
    const size_t text = number<uint64_t>(image, table + names * entry + 24);
    std::vector<Function*> kernels;
    for (size_t i = 0; i < sections; ++i) {
        const size_t header = table + i * entry;
        const std::string name = image + text + number<uint32_t>(image, header), prefix = ".nv.info.";
        if (name.compare(0, prefix.size(), prefix)) continue;
        auto* kernel = new Function{name.substr(prefix.size()), 0};
        size_t at = number<uint64_t>(image, header + 24);
        for (const size_t end = at + number<uint64_t>(image, header + 32); at + 4 <= end;) {
            const int format = image[at], attribute = image[at + 1];
            if (format == 4 && attribute == 0x17) kernel->argument_bytes = number<uint32_t>(image, at + 12) >> 18;
            if (format == 4 && attribute == 0x05) kernel->most_threads = number<uint32_t>(image, at + 4);
            at += format == 4 ? 4 + number<uint16_t>(image, at + 2) : 4;
        }
        kernel->real = true;
        kernels.push_back(kernel);
    }
    return kernels;
}

EXPORT cuModuleLoadData(Module** module, const void* image) {
    NEEDS_CONTEXT; NOT_IN_CAPTURE;
    if (!memcmp(image, "\x7f" "ELF", 4)) *module = new Module{kernels_of((const char*)image)};
    else if (!memcmp(image, "cubin", 5)) *module = new Module{{new Function{"add", sizeof(Add)}, new Function{"fault", 8}, new Function{"hang", 8}, new Function{"two", 8}}};
    else return INVALID_VALUE;
    live.insert(*module);
    return SUCCESS;
}
EXPORT cuModuleUnload(Module* module) {
    if (!live.erase(module)) refuse("a module is unloaded twice");
    for (auto* function : module->functions) delete function;
    delete module;
    return SUCCESS;
}
EXPORT cuModuleGetFunctionCount(unsigned* count, Module* module) { *count = module->functions.size(); return SUCCESS; }
EXPORT cuModuleEnumerateFunctions(Function** functions, unsigned count, Module* module) {
    for (unsigned i = 0; i < count; ++i) functions[i] = module->functions[i];
    return SUCCESS;
}
EXPORT cuFuncLoad(Function*) { NEEDS_CONTEXT; NOT_IN_CAPTURE; return SUCCESS; }
EXPORT cuFuncGetName(const char** name, Function* function) { *name = function->name.c_str(); return SUCCESS; }
EXPORT cuFuncGetParamInfo(Function* function, size_t index, size_t* offset, size_t* bytes) {
    if (index >= (function->name == "two" ? 2 : 1)) return INVALID_VALUE;
    *offset = 0;
    *bytes = function->argument_bytes;
    return SUCCESS;
}
EXPORT cuFuncSetAttribute(Function* function, int attribute, int value) {
    NEEDS_CONTEXT;
    if (attribute == 8 && value <= 232448) function->granted = value;
    else if (attribute == 9 && value >= -1 && value <= 100) function->carve_out = value;
    else return INVALID_VALUE;
    return SUCCESS;
}
// Attributes of a launch beyond its grid: the ones that the engine uses.
struct Attribute { int id, unused; union { int number; unsigned extents[3]; char bytes[64]; } value; };
struct Launch { unsigned grid[3], block[3], shared; Stream* stream; const Attribute* attributes; unsigned count; };

EXPORT cuLaunchKernelEx(const Launch* launch, Function* function, void** parameters, void** extra) {
    NEEDS_CONTEXT;
    if (extra || (int)launch->shared > function->granted || launch->block[0] > function->most_threads) return INVALID_VALUE;
    bool overlapped = false;
    unsigned cluster = 1;
    for (unsigned i = 0; i < launch->count; ++i) {
        const Attribute& attribute = launch->attributes[i];
        if (attribute.id == 6) overlapped = attribute.value.number;
        else if (attribute.id == 4) cluster = attribute.value.extents[0];
        else return INVALID_VALUE;
        if (attribute.id == 4 && (attribute.value.extents[1] != 1 || attribute.value.extents[2] != 1)) return INVALID_VALUE;
    }
    if (cluster == 0 || launch->grid[0] % cluster) return INVALID_VALUE;
    Stream* stream = launch->stream;
    // A kernel that prefers none has the least that holds its thread blocks.
    const int carve_out = function->carve_out < 0 ? launch->shared >> 10 : function->carve_out;
    const int before = (stream->capturing ? stream->captured : stream->so_far).carve_out;
    const double milliseconds = overlapped && before == carve_out ? 0.5 : 1;
    auto run = [=](Work work) { return queue(stream, work, milliseconds, carve_out); };
    // The kernel of this name accesses what is not there.
    const char* faulty = getenv("RESIDUA_FAKE_FAULT");
    if (faulty && function->name == faulty) return run([] { fault = ILLEGAL_ADDRESS; });
    if (function->real) return run([] {});
    if (function->name == "hang") return run([] { hangs = true; });
    if (function->name == "fault") return run([] { fault = ILLEGAL_ADDRESS; });
    Add add;
    memcpy(&add, parameters[0], sizeof add);
    // Every block of a cluster adds.
    return run([=] { for (unsigned long long i = 0; i < add.n; ++i) add.y[i] += add.x * cluster; });
}

// NVRTC, which finds everything well; left out where the real one is to compile.
#ifndef WITHOUT_NVRTC
extern "C" __attribute__((visibility("default"))) const char* nvrtcGetErrorString(int) { return "the fake compiler refuses"; }
EXPORT nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return SUCCESS; }
EXPORT nvrtcCreateProgram(void** program, const char*, const char*, int, const char* const*, const char* const*) {
    *program = malloc(1);
    return SUCCESS;
}
EXPORT nvrtcDestroyProgram(void** program) { free(*program); *program = nullptr; return SUCCESS; }
EXPORT nvrtcCompileProgram(void*, int, const char* const*) { return SUCCESS; }
EXPORT nvrtcGetProgramLogSize(void*, size_t* bytes) { *bytes = 1; return SUCCESS; }
EXPORT nvrtcGetProgramLog(void*, char* log) { *log = 0; return SUCCESS; }
EXPORT nvrtcGetCUBINSize(void*, size_t* bytes) { *bytes = 5; return SUCCESS; }
EXPORT nvrtcGetCUBIN(void*, char* cubin) { memcpy(cubin, "cubin", 5); return SUCCESS; }
#endif

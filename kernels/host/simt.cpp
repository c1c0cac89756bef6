// The scheduler behind simt.h: fibers, barriers, asynchronous copies, tensor instructions and the launch by
// name.
#include "simt.h"

#include <atomic>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <sys/mman.h>

#ifndef __x86_64__
#error "the fiber switch is written for x86-64"
#endif

// Saves the callee-saved registers on the running stack, whose pointer goes to `*save`, and goes on with the
// stack `to`, which was left in the same way.
extern "C" void duel_simt_switch(void **save, void *to);
asm(R"(
.text
.globl duel_simt_switch
.hidden duel_simt_switch
.type duel_simt_switch, @function
duel_simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size duel_simt_switch, .-duel_simt_switch
)");

// ---- sanitizers -------------------------------------------------------------------------------------------

#ifdef __SANITIZE_ADDRESS__
extern "C" {
void __sanitizer_start_switch_fiber(void **fake_stack_save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom_old, size_t *size_old);
void __asan_poison_memory_region(const volatile void *at, size_t size);
void __asan_unpoison_memory_region(const volatile void *at, size_t size);
}
#endif

// DUEL_SIMT_RACE: the kernels are compiled with -fsanitize=thread, this file is not (its own bookkeeping is
// no memory of the kernel), but it tells ThreadSanitizer about fibers, synchronisation and the memory that an
// emulated instruction touches.
#ifdef DUEL_SIMT_RACE
extern "C" {
void *__tsan_get_current_fiber();
void *__tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(void *at);
void __tsan_release(void *at);
void __tsan_read_range(void *at, size_t size);
void __tsan_write_range(void *at, size_t size);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
}
#endif

namespace simt {

__thread Thread *current;

namespace {

// What came before a release of a tag comes before what follows an acquire of it. No tag, no order.
void release([[maybe_unused]] void *tag) {
#ifdef DUEL_SIMT_RACE
    if (tag) {
        __tsan_release(tag);
    }
#endif
}
void acquire([[maybe_unused]] void *tag) {
#ifdef DUEL_SIMT_RACE
    if (tag) {
        __tsan_acquire(tag);
    }
#endif
}

// ---- state ------------------------------------------------------------------------------------------------

constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned MAX_WARPS = MAX_THREADS / 32;
constexpr unsigned WARPGROUP = 128;
constexpr unsigned BARRIERS = 16;
// Divergent parts of one warp that can wait with masks of their own at a time.
constexpr unsigned WARP_GROUPS = 8;
constexpr size_t MAX_SHARED_BYTES = 227 << 10;
// Around shared memory; a write into it is found when the block ends.
constexpr size_t GUARD_BYTES = 1024;
constexpr unsigned char GUARD = 0xa5;
constexpr size_t PAGE = 4096;
#ifdef __SANITIZE_ADDRESS__
constexpr size_t STACK_BYTES = 512 << 10;
#else
constexpr size_t STACK_BYTES = 128 << 10;
#endif

enum class Order : unsigned { forward, reverse, random };

// How the host keeps a tensor map inside the opaque 128 bytes.
struct HostMap {
    TensorMapSpec spec;
    unsigned magic;
};
constexpr unsigned MAP_MAGIC = 0x7e450a9;
static_assert(sizeof(HostMap) <= sizeof(TensorMap), "a host map fits into a tensor map");

struct Copy {
    void *to;
    const void *from;
    bool valid;
};

struct Transfer {
    HostMap map;
    int at[3];
    unsigned rank;
    unsigned shared;
    unsigned bar;
    Place place;
};

struct PendingWgmma {
    Wgmma operands;
    float *d[WARPGROUP];
    unsigned a[WARPGROUP][4];
    Place place;
};

// Groups of asynchronous operations, oldest first; the last one is open.
template <class T> struct Queue {
    std::vector<std::vector<T>> groups{1};
    void reset() {
        groups.resize(1);
        groups[0].clear();
    }
    void push(const T &operation) { groups.back().push_back(operation); }
    void commit() { groups.emplace_back(); }
    // Calls `f` on what `wait` would carry out.
    template <class F> void ending(unsigned pending, F &&f) const {
        for (size_t i = 0; i + pending + 1 < groups.size(); i++) {
            std::for_each(groups[i].begin(), groups[i].end(), f);
        }
    }
    // Carries out all but the newest `pending` committed groups.
    template <class F> void wait(unsigned pending, F &&run) {
        while (groups.size() > pending + 1) {
            for (const T &operation : groups.front()) {
                run(operation);
            }
            groups.erase(groups.begin());
        }
    }
    bool empty() const {
        return std::all_of(groups.begin(), groups.end(), [](const auto &group) { return group.empty(); });
    }
};

struct Fiber : Thread {
    void *stack_pointer;
    unsigned char *stack;
    void *sanitizer;  // ASan's fake stack, or TSan's fiber
    unsigned unseen;  // scopes of `Unseen` that it is in
    const char *what; // it waits for
    Place place;
    Queue<Copy> copies;
    Queue<Transfer> stores;
};

// Threads that meet at one point: a warp or part of it, a warpgroup, a barrier.
struct Group {
    unsigned mask = 0;
    unsigned arrived = 0;
    unsigned count = 0;
    unsigned waiting[MAX_WARPS] = {};
    void *arguments[WARPGROUP] = {};
    const char *what = nullptr;
    Place place = {};
    unsigned first = 0;
    unsigned generation = 0;
    char tags[2] = {}; // of this generation and the one before
};

struct MBarrier {
    unsigned offset;
    unsigned count;
    unsigned pending;
    long bytes; // expected minus arrived
    bool phase;
};

struct Warpgroup {
    Group group;
    Queue<PendingWgmma> queue;
    bool fenced;
};

#ifdef DUEL_SIMT_RACE
// ThreadSanitizer's fibers are expensive to make, so they are lent out again and again: one that ran a thread
// to its end may run another one later, since whoever launches that has waited for the first.
class LentFibers {
  public:
    explicit LentFibers(unsigned count) {
        const std::lock_guard<std::mutex> lock(mutex());
        while (fibers_.size() < count) {
            if (free().empty()) {
                fibers_.push_back(__tsan_create_fiber(0));
            } else {
                fibers_.push_back(free().back());
                free().pop_back();
            }
        }
    }
    ~LentFibers() {
        const std::lock_guard<std::mutex> lock(mutex());
        free().insert(free().end(), fibers_.begin(), fibers_.end());
    }
    LentFibers(const LentFibers &) = delete;
    LentFibers &operator=(const LentFibers &) = delete;
    void *operator[](unsigned i) const { return fibers_[i]; }
    // After an error: fibers that were left in the middle of a kernel are of no further use, and cannot be
    // ended. They pass on, in a release of `tag`, that all they did is past.
    void abandon(void *tag) {
        void *const me = __tsan_get_current_fiber();
        for (void *fiber : fibers_) {
            __tsan_switch_to_fiber(fiber, 1);
            __tsan_release(tag);
            __tsan_switch_to_fiber(me, 1);
        }
        fibers_.clear();
    }

  private:
    static std::mutex &mutex() {
        static std::mutex one;
        return one;
    }
    static std::vector<void *> &free() {
        static std::vector<void *> all;
        return all;
    }
    std::vector<void *> fibers_;
};
#endif

struct Worker : Block {
    const SimtOptions &options;
    const Kernel &kernel;
    void *const *arguments;
    unsigned threads = dim.x * dim.y * dim.z;
    unsigned warps = (threads + 31) / 32;
    unsigned live = 0;
    unsigned ready[MAX_WARPS] = {}, alive[MAX_WARPS] = {};
    unsigned polling[MAX_WARPS] = {}; // waiting for some mbarrier
    Group warp_groups[MAX_WARPS][WARP_GROUPS] = {};
    Group barriers[BARRIERS] = {};
    Warpgroup warpgroups[MAX_THREADS / WARPGROUP] = {};
    std::vector<Fiber> fibers = std::vector<Fiber>(threads);
#ifdef DUEL_SIMT_RACE
    LentFibers sanitizer_fibers{threads};
#endif
    std::vector<MBarrier> mbarriers = {};
    std::vector<Transfer> loads = {};
    unsigned long long random = 0;
    void *home = nullptr;
    char started = 0, ended = 0; // tags: every thread starts after the launch, and ends before its end
    void *home_sanitizer = nullptr;
    const void *home_stack = nullptr;
    size_t home_stack_bytes = 0;
    std::string error = {};

    Order order() const { return static_cast<Order>(options.order); }
    bool lazy() const { return !options.eager_copies; }
    unsigned draw(unsigned below) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        return unsigned((random >> 33) % below);
    }
};

Worker &worker() { return *static_cast<Worker *>(current->block); }
Fiber &self() { return *static_cast<Fiber *>(current); }
// While there is one, the running thread's accesses to memory are the emulation's own, of which the race
// checker must not hear: it intercepts memcpy, new and the like wherever they are called from.
class Unseen {
  public:
#ifdef DUEL_SIMT_RACE
    Unseen() {
        if (self().unseen++ == 0) {
            begin();
        }
    }
    ~Unseen() {
        if (--self().unseen == 0) {
            end();
        }
    }
    static void begin() {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    static void end() {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
#else
    Unseen() {}
    ~Unseen() {}
#endif
    Unseen(const Unseen &) = delete;
    Unseen &operator=(const Unseen &) = delete;
};

// The running thread reads (or writes) memory through an instruction that is carried out elsewhere.
void note([[maybe_unused]] const void *at, [[maybe_unused]] size_t bytes, [[maybe_unused]] bool write) {
#ifdef DUEL_SIMT_RACE
    const bool unseen = self().unseen;
    if (unseen) {
        Unseen::end();
    }
    (write ? __tsan_write_range : __tsan_read_range)(const_cast<void *>(at), bytes);
    if (unseen) {
        Unseen::begin();
    }
#endif
}
void note_read(const void *at, size_t bytes) { note(at, bytes, false); }
void note_write(void *at, size_t bytes) { note(at, bytes, true); }

unsigned warp_index() { return current->linear / 32; }
unsigned lane_bit() { return 1u << current->linear % 32; }

// Lanes of a warp that exist: the last warp of a block may be partial.
unsigned existing_lanes(unsigned threads, unsigned warp) {
    const unsigned left = threads - warp * 32;
    return left >= 32 ? ~0u : (1u << left) - 1;
}

// ---- switching --------------------------------------------------------------------------------------------

void switch_stacks(void **save, [[maybe_unused]] void **fake, [[maybe_unused]] void *sanitizer, void *to,
                   [[maybe_unused]] const void *bottom, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(fake, bottom, bytes);
#endif
#ifdef DUEL_SIMT_RACE
    __tsan_switch_to_fiber(sanitizer, 1); // 1: without making an order
#endif
    duel_simt_switch(save, to);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake ? *fake : nullptr, nullptr, nullptr);
#endif
}

void run_thread(unsigned linear) {
    Fiber &from = self();
    Fiber &to = worker().fibers[linear];
    if (&from != &to) {
        current = &to;
        switch_stacks(&from.stack_pointer, &from.sanitizer, to.sanitizer, to.stack_pointer, to.stack,
                      STACK_BYTES);
    }
}

// Back to whom called `run_block`; the running fiber is abandoned.
[[noreturn]] void go_home() {
    Worker &w = worker();
    void *abandoned;
    switch_stacks(&abandoned, nullptr, w.home_sanitizer, w.home, w.home_stack, w.home_stack_bytes);
    abort();
}

// Nearly always it is one text, of one file.
bool is_same(const char *a, const char *b) { return a == b || !strcmp(a, b); }
bool is_same(Place a, Place b) { return a.line == b.line && is_same(a.file, b.file); }

std::string place_text(Place place) {
    const char *slash = strrchr(place.file, '/');
    return std::string(slash ? slash + 1 : place.file) + ":" + std::to_string(place.line);
}

std::string format(const char *text, va_list arguments) {
    char buffer[512];
    vsnprintf(buffer, sizeof buffer, text, arguments);
    return buffer;
}

std::string thread_text(const Thread &thread) {
    char buffer[128];
    const uint3 &b = thread.block->index;
    snprintf(buffer, sizeof buffer, "block (%u, %u, %u), thread (%u, %u, %u)", b.x, b.y, b.z, thread.index.x,
             thread.index.y, thread.index.z);
    return buffer;
}

// Who waits where, runs of threads at one place taken together.
std::string waits_text(const Worker &w) {
    std::string text;
    unsigned from = 0;
    const auto waits = [&](unsigned t) { return w.alive[t / 32] >> t % 32 & 1; };
    const auto same = [&](const Fiber &a, const Fiber &b) {
        return a.what == b.what && is_same(a.place, b.place);
    };
    while (from < w.threads) {
        if (!waits(from)) {
            from++;
            continue;
        }
        unsigned to = from;
        while (to + 1 < w.threads && waits(to + 1) && same(w.fibers[from], w.fibers[to + 1])) {
            to++;
        }
        text += (text.empty() ? "" : "; ") + std::string("threads ") + std::to_string(from) + "-" +
                std::to_string(to) + " wait at " + w.fibers[from].what + ", " +
                place_text(w.fibers[from].place);
        from = to + 1;
    }
    return text;
}

[[noreturn]] void end_launch(const std::string &message) {
    const Unseen unseen;
    worker().error = message;
    go_home();
}

[[noreturn]] void deadlock() {
    const Unseen unseen;
    Worker &w = worker();
    const uint3 &b = w.index;
    char block[64];
    snprintf(block, sizeof block, "block (%u, %u, %u)", b.x, b.y, b.z);
    end_launch(std::string(w.kernel.name) + ": deadlock in " + block + ": " + waits_text(w));
}

// A lane of `ready`, in the launch's order, after lane `after`.
unsigned pick_lane(Worker &w, unsigned ready, unsigned after) {
    switch (w.order()) {
    case Order::random: {
        for (unsigned skip = w.draw(__builtin_popcount(ready)); skip; skip--) {
            ready &= ready - 1;
        }
        return __builtin_ctz(ready);
    }
    case Order::reverse: {
        const unsigned below = ready & ((1u << after) - 1);
        return 31 - __builtin_clz(below ? below : ready);
    }
    default: {
        const unsigned above = after < 31 ? ready & ~0u << (after + 1) : 0;
        return __builtin_ctz(above ? above : ready);
    }
    }
}

// Runs a ready thread, if there is one. Staying, it is one of the running thread's warp while that has any,
// so that warps advance unevenly; otherwise one of another warp if possible.
bool run_ready(Worker &w, bool stay) {
    const unsigned warp = warp_index();
    if (stay && w.ready[warp]) {
        run_thread(warp * 32 + pick_lane(w, w.ready[warp], current->linear % 32));
        return true;
    }
    const bool down = w.order() == Order::reverse;
    const unsigned start = w.order() == Order::random ? w.draw(w.warps) : warp;
    for (unsigned i = 0; i < w.warps; i++) {
        const unsigned step = down ? w.warps - 1 - i : i + 1;
        const unsigned candidate = (start + step) % w.warps;
        if (w.ready[candidate]) {
            run_thread(candidate * 32 + pick_lane(w, w.ready[candidate], down ? 0 : 31));
            return true;
        }
    }
    return false;
}

void run_load(const Transfer &load);

// One of the outstanding loads of the copy engine, which completes them in any order.
void run_one_load(Worker &w) {
    const Unseen unseen;
    size_t which = 0;
    if (w.order() == Order::reverse) {
        which = w.loads.size() - 1;
    } else if (w.order() == Order::random) {
        which = w.draw(unsigned(w.loads.size()));
    }
    const Transfer load = w.loads[which];
    w.loads.erase(w.loads.begin() + long(which));
    run_load(load);
}

// Leaves the running thread until the schedule returns to it.
void yield(bool stay = true) {
    Worker &w = worker();
    for (;;) {
        if (w.order() == Order::random && !w.loads.empty() && w.draw(8) == 0) {
            run_one_load(w);
        }
        if (run_ready(w, stay)) {
            return;
        }
        if (!w.live) {
            go_home();
        }
        if (w.loads.empty()) {
            deadlock();
        }
        run_one_load(w); // nothing else can run: the latest moment for the copy engine
    }
}

// Lets another warp go first, sometimes, in the random order: after an arrival that may have set it going.
void preempt() {
    Worker &w = worker();
    if (w.order() == Order::random && w.draw(2)) {
        yield(false);
    }
}

void wait_in(unsigned *waiting, const char *what, Place place) {
    Worker &w = worker();
    self().what = what;
    self().place = place;
    waiting[warp_index()] |= lane_bit();
    w.ready[warp_index()] &= ~lane_bit();
    yield();
}

void wake(Worker &w, unsigned *waiting) {
    for (unsigned i = 0; i < w.warps; i++) {
        w.ready[i] |= waiting[i];
        waiting[i] = 0;
    }
}

// ---- meeting ----------------------------------------------------------------------------------------------

void complete(Worker &w, Group &group) {
    wake(w, group.waiting);
    group.arrived = 0;
    group.generation++;
}

// Every thread of a group must come from the same call: elsewhere the hardware would mix up unrelated
// instructions.
void check_same_call(Group &group, const char *what, Place place) {
    if (!group.arrived) {
        group.what = what;
        group.place = place;
        group.first = current->linear;
        return;
    }
    if (!is_same(group.place, place) || !is_same(group.what, what)) {
        fail(place, "divergence: this thread is at %s while thread %u waits at %s, %s", what, group.first,
             group.what, place_text(group.place).c_str());
    }
}

// `orders`: what the threads did to memory before comes before what they do after.
void meet(Group &group, unsigned slot, unsigned count, void *argument, const char *what, Place place,
          Action action, bool orders) {
    const Unseen unseen;
    check_same_call(group, what, place);
    group.arguments[slot] = argument;
    char *tag = orders ? &group.tags[group.generation % 2] : nullptr;
    release(tag);
    if (++group.arrived == count) {
        acquire(tag);
        action.call(action.closure, group.arguments);
        release(tag);
        std::fill(std::begin(group.arguments), std::end(group.arguments), nullptr);
        complete(worker(), group);
    } else {
        wait_in(group.waiting, what, place);
        acquire(tag);
    }
}

// The group of a warp that waits with this mask, or a free one.
Group &warp_group(unsigned mask, const char *what, Place place) {
    Group *free = nullptr;
    for (Group &group : worker().warp_groups[warp_index()]) {
        if (group.arrived && group.mask == mask) {
            return group;
        }
        if (group.arrived && group.mask & mask) {
            fail(place, "divergence: %s with mask %08x while lanes %08x wait at %s, %s", what, mask,
                 group.mask, group.what, place_text(group.place).c_str());
        }
        if (!group.arrived && !free) {
            free = &group;
        }
    }
    free->mask = mask; // disjoint masks of 32 lanes that wait for others: at most 16, of which 8 are plenty
    return *free;
}

} // namespace

void fail(Place place, const char *text, ...) {
    const Unseen unseen;
    va_list arguments;
    va_start(arguments, text);
    const std::string message = format(text, arguments);
    va_end(arguments);
    end_launch(std::string(worker().kernel.name) + ": " + message + "; at " + place_text(place) + ", " +
               thread_text(*current));
}

namespace {

void meet_lanes(unsigned mask, void *argument, const char *what, Place place, Action action, bool orders) {
    mask &= existing_lanes(worker().threads, warp_index());
    if (!(mask & lane_bit())) {
        fail(place, "%s: the calling lane is not in its own mask %08x", what, mask);
    }
    Group &group = warp_group(mask, what, place);
    // A thread without an argument still has to be told from a lane outside the mask.
    static char present;
    meet(group, current->linear % 32, unsigned(__builtin_popcount(mask)), argument ? argument : &present,
         what, place, action, orders);
}

} // namespace

void meet_warp(unsigned mask, void *argument, const char *what, Place place, Action action) {
    meet_lanes(mask, argument, what, place, action, false);
}

void sync_warp(unsigned mask, Place place) {
    meet_lanes(mask, nullptr, "__syncwarp", place, {[](void *, void *const *) {}, nullptr}, true);
}

void meet_warpgroup(void *argument, const char *what, Place place, Action action) {
    const unsigned which = current->linear / WARPGROUP;
    if ((which + 1) * WARPGROUP > worker().threads) {
        fail(place, "%s: the thread is not in a whole warpgroup", what);
    }
    meet(worker().warpgroups[which].group, current->linear % WARPGROUP, WARPGROUP, argument, what, place,
         action, false);
}

void barrier(unsigned id, unsigned count, bool waits, const char *what, Place place) {
    const Unseen unseen;
    Worker &w = worker();
    if (id >= BARRIERS) {
        fail(place, "%s: barrier %u does not exist", what, id);
    }
    if (count % 32 || count > MAX_THREADS || (!waits && !count)) {
        fail(place, "%s: a count of %u is not a number of warps", what, count);
    }
    Group &group = w.barriers[id];
    if (group.arrived && group.count != count) {
        fail(place, "%s: barrier %u with count %u, but thread %u gave %u at %s", what, id, count, group.first,
             group.count, place_text(group.place).c_str());
    }
    if (count == 0) {
        check_same_call(group, what, place);
    } else if (!group.arrived) {
        group.first = current->linear;
        group.place = place;
    }
    group.count = count;
    char *tag = &group.tags[group.generation % 2];
    release(tag);
    if (++group.arrived == (count ? count : w.live)) {
        complete(w, group);
    } else if (waits) {
        wait_in(group.waiting, what, place);
    }
    if (waits) {
        acquire(tag);
    } else {
        preempt();
    }
}

unsigned shared_offset(const void *at, size_t bytes, size_t align, const char *what, Place place) {
    const Block &block = *current->block;
    const auto offset = static_cast<size_t>(static_cast<const unsigned char *>(at) - block.shared);
    if (offset > block.shared_bytes || bytes > block.shared_bytes - offset) {
        fail(place, "%s: offset %td with %zu bytes is outside the %zu bytes of shared memory", what,
             static_cast<const unsigned char *>(at) - block.shared, bytes, block.shared_bytes);
    }
    if (offset % align) {
        fail(place, "%s: shared memory offset %zu is not a multiple of %zu", what, offset, align);
    }
    return unsigned(offset);
}

// ---- matrix instructions of a warp ------------------------------------------------------------------------

namespace {

float bf16_value(unsigned bits) { return __uint_as_float(bits << 16); }
float bf16_half(unsigned word, unsigned half) {
    return half ? __uint_as_float(word & 0xffff0000u) : bf16_value(word);
}

template <class F> Action action_of(F &closure) { return {invoke<F>, &closure}; }

} // namespace

void ldmatrix(unsigned *registers, unsigned matrices, const void *row, bool transposed, Place place) {
    struct Lane {
        unsigned *registers;
        const unsigned char *row;
    } lane{registers, static_cast<const unsigned char *>(row)};
    // Lanes 8i..8i+8 give the rows of matrix i; the others' addresses are not used.
    if (current->linear % 32 < 8 * matrices) {
        shared_offset(row, 16, 16, "ldmatrix", place);
        note_read(row, 16);
    }
    auto load = [matrices, transposed](void *const *lanes) {
        for (unsigned m = 0; m < matrices; m++) {
            uint16_t tile[8][8];
            for (unsigned i = 0; i < 8; i++) {
                memcpy(tile[i], static_cast<Lane *>(lanes[m * 8 + i])->row, 16);
            }
            for (unsigned l = 0; l < 32; l++) {
                const unsigned i = l / 4, j = l % 4 * 2;
                const unsigned low = transposed ? tile[j][i] : tile[i][j];
                const unsigned high = transposed ? tile[j + 1][i] : tile[i][j + 1];
                static_cast<Lane *>(lanes[l])->registers[m] = low | high << 16;
            }
        }
    };
    // What it reads may be overwritten by whoever comes out of it.
    meet_lanes(~0u, &lane, "ldmatrix", place, action_of(load), true);
}

namespace {

// What a tensor core stores of a sum. It adds the products of an instruction and the accumulator as good as exactly,
// and cuts off what float has no room for (measured by Fasi et al., 2021, for compute capability 7.0 to 8.0; an H100
// here was off by as much). PTX leaves it open.
float cut_off(double sum) {
    const float nearest = static_cast<float>(sum);
    const bool away = std::isfinite(nearest) && std::fabs(static_cast<double>(nearest)) > std::fabs(sum);
    // What is farther from zero than a sum is not zero, and the number before it has the bits before its own.
    return __uint_as_float(__float_as_uint(nearest) - away);
}

} // namespace

void mma_m16n8k16(float *d, const unsigned *a, unsigned b0, unsigned b1, Place place) {
    struct Lane {
        float *d;
        const unsigned *a;
        unsigned b[2];
    } lane{d, a, {b0, b1}};
    auto multiply = [](void *const *lanes) {
        double left[16][16], right[16][8], sum[16][8];
        for (unsigned l = 0; l < 32; l++) {
            const Lane &x = *static_cast<Lane *>(lanes[l]);
            const unsigned row = l / 4, col = l % 4 * 2;
            for (unsigned h = 0; h < 2; h++) {
                left[row][col + h] = bf16_half(x.a[0], h);
                left[row + 8][col + h] = bf16_half(x.a[1], h);
                left[row][col + 8 + h] = bf16_half(x.a[2], h);
                left[row + 8][col + 8 + h] = bf16_half(x.a[3], h);
                right[col + h][row] = bf16_half(x.b[0], h);
                right[col + 8 + h][row] = bf16_half(x.b[1], h);
                sum[row][col + h] = x.d[h];
                sum[row + 8][col + h] = x.d[2 + h];
            }
        }
        for (unsigned i = 0; i < 16; i++) {
            for (unsigned k = 0; k < 16; k++) {
                for (unsigned j = 0; j < 8; j++) {
                    sum[i][j] += left[i][k] * right[k][j];
                }
            }
        }
        for (unsigned l = 0; l < 32; l++) {
            float *out = static_cast<Lane *>(lanes[l])->d;
            const unsigned row = l / 4, col = l % 4 * 2;
            for (unsigned h = 0; h < 2; h++) {
                out[h] = cut_off(sum[row][col + h]);
                out[2 + h] = cut_off(sum[row + 8][col + h]);
            }
        }
    };
    meet_warp(~0u, &lane, "mma", place, action_of(multiply));
}

// ---- cp.async ---------------------------------------------------------------------------------------------

namespace {

void run_copy(const Copy &copy) {
    const Unseen unseen;
    note_write(copy.to, 16);
    if (copy.valid) {
        note_read(copy.from, 16);
        memcpy(copy.to, copy.from, 16);
    } else {
        memset(copy.to, 0, 16);
    }
}

} // namespace

void copy_async(void *shared, const void *global, bool valid, Place place) {
    shared_offset(shared, 16, 16, "cp.async", place);
    if (valid) {
        check_aligned(global, 16, "cp.async", place);
    }
    const Unseen unseen;
    const Copy copy{shared, global, valid};
    if (worker().lazy()) {
        self().place = place;
        self().copies.push(copy);
    } else {
        run_copy(copy);
    }
}

void copy_commit() {
    const Unseen unseen;
    self().copies.commit();
}

void copy_wait(unsigned pending) {
    const Unseen unseen;
    self().copies.wait(pending, run_copy);
}

// ---- mbarriers --------------------------------------------------------------------------------------------

namespace {

// The barrier's own eight bytes hold this, so that overwriting them shows.
constexpr unsigned long long MBARRIER_MARK = 0x6d62617272696572;

MBarrier &mbarrier(unsigned offset, const char *what, Place place) {
    Worker &w = worker();
    for (MBarrier &bar : w.mbarriers) {
        if (bar.offset == offset) {
            unsigned long long mark;
            memcpy(&mark, w.shared + offset, sizeof mark);
            if (mark != MBARRIER_MARK) {
                fail(place, "%s: the mbarrier at offset %u was overwritten", what, offset);
            }
            return bar;
        }
    }
    fail(place, "%s: there is no mbarrier at offset %u, it was not initialised", what, offset);
}

unsigned mbarrier_offset(const void *bar, const char *what, Place place) {
    const unsigned offset = shared_offset(bar, 8, 8, what, place);
    note_read(bar, 8);
    return offset;
}

void end_phase_if_complete(MBarrier &bar) {
    if (bar.pending == 0 && bar.bytes == 0) {
        bar.phase = !bar.phase;
        bar.pending = bar.count;
        wake(worker(), worker().polling);
    }
}

} // namespace

void mbarrier_init(unsigned long long *bar, unsigned count, Place place) {
    const unsigned offset = mbarrier_offset(bar, "mbarrier init", place);
    if (count == 0) {
        fail(place, "mbarrier init: a count of 0");
    }
    note_write(bar, 8);
    const Unseen unseen;
    std::vector<MBarrier> &all = worker().mbarriers;
    all.erase(std::remove_if(all.begin(), all.end(), [&](const MBarrier &b) { return b.offset == offset; }),
              all.end());
    all.push_back({offset, count, count, 0, false});
    memcpy(worker().shared + offset, &MBARRIER_MARK, sizeof MBARRIER_MARK);
}

void mbarrier_arrive(unsigned long long *at, unsigned expected_bytes, Place place) {
    const Unseen unseen;
    MBarrier &bar = mbarrier(mbarrier_offset(at, "mbarrier arrive", place), "mbarrier arrive", place);
    if (bar.pending == 0) {
        fail(place, "mbarrier arrive: more arrivals than the count of %u", bar.count);
    }
    release(worker().shared + bar.offset);
    bar.pending--;
    bar.bytes += expected_bytes;
    end_phase_if_complete(bar);
    preempt();
}

void mbarrier_wait(unsigned long long *at, unsigned parity, Place place) {
    const Unseen unseen;
    const unsigned offset = mbarrier_offset(at, "mbarrier wait", place);
    while (mbarrier(offset, "mbarrier wait", place).phase == (parity & 1)) {
        wait_in(worker().polling, "mbarrier wait", place);
    }
    acquire(worker().shared + offset);
}

// ---- TMA --------------------------------------------------------------------------------------------------

namespace {

// Swizzling exchanges 16-byte chunks inside each 32, 64 or 128 bytes: address bits 4.. are xored with
// bits 7...
unsigned swizzled(unsigned address, unsigned swizzle_bytes) {
    return swizzle_bytes ? address ^ (address >> 3 & (swizzle_bytes - 1) & ~15u) : address;
}

// Calls `f(offset in shared memory, pointer into the array or null outside it)` for each element of the tile.
template <class F> void each_element(const Transfer &transfer, F &&f) {
    const TensorMapSpec &spec = transfer.map.spec;
    const unsigned depth = transfer.rank == 3 ? spec.tile[2] : 1;
    unsigned index = 0;
    for (unsigned k = 0; k < depth; k++) {
        for (unsigned j = 0; j < spec.tile[1]; j++) {
            for (unsigned i = 0; i < spec.tile[0]; i++) {
                const long long x = transfer.at[0] + (long long)i;
                const long long y = transfer.at[1] + (long long)j;
                const long long z = transfer.rank == 3 ? transfer.at[2] + (long long)k : 0;
                const auto inside = [&](long long at, unsigned d) {
                    return at >= 0 && at < (long long)spec.extents[d];
                };
                unsigned char *element = nullptr;
                if (inside(x, 0) && inside(y, 1) && (transfer.rank == 2 || inside(z, 2))) {
                    const long long bytes = x * spec.element_bytes + y * (long long)spec.strides[0] +
                                            (transfer.rank == 3 ? z * (long long)spec.strides[1] : 0);
                    element = reinterpret_cast<unsigned char *>(spec.base) + bytes;
                }
                f(swizzled(transfer.shared + index * spec.element_bytes, spec.swizzle_bytes), element);
                index++;
            }
        }
    }
}

size_t tile_bytes(const TensorMapSpec &spec) {
    return size_t(spec.tile[0]) * spec.tile[1] * (spec.rank == 3 ? spec.tile[2] : 1) * spec.element_bytes;
}

void run_load(const Transfer &load) {
    const Unseen unseen;
    Worker &w = worker();
    const unsigned bytes = load.map.spec.element_bytes;
    each_element(load, [&](unsigned offset, const unsigned char *element) {
        if (element) {
            memcpy(w.shared + offset, element, bytes);
        } else {
            memset(w.shared + offset, 0, bytes);
        }
    });
    MBarrier &bar = mbarrier(load.bar, "TMA load", load.place);
    bar.bytes -= long(tile_bytes(load.map.spec));
    end_phase_if_complete(bar);
}

void run_store(const Transfer &store) {
    Worker &w = worker();
    note_read(w.shared + store.shared, tile_bytes(store.map.spec));
    each_element(store, [&](unsigned offset, unsigned char *element) {
        if (element) {
            note_write(element, store.map.spec.element_bytes);
            memcpy(element, w.shared + offset, store.map.spec.element_bytes);
        }
    });
}

Transfer transfer(const TensorMap *map, const void *shared, const int (&at)[3], unsigned rank,
                  const char *what, Place place) {
    Transfer t{};
    memcpy(&t.map, map, sizeof t.map);
    if (t.map.magic != MAP_MAGIC) {
        fail(place, "%s: this is no tensor map of the emulation", what);
    }
    if (t.map.spec.rank != rank) {
        fail(place, "%s: %u coordinates for a tensor map of rank %u", what, rank, t.map.spec.rank);
    }
    std::copy(std::begin(at), std::end(at), t.at);
    t.rank = rank;
    // A swizzled tile starts where its pattern does: 8 rows of the swizzle's width.
    const unsigned pattern = std::max(128u, 8 * t.map.spec.swizzle_bytes);
    t.shared = shared_offset(shared, tile_bytes(t.map.spec), pattern, what, place);
    t.place = place;
    return t;
}

} // namespace

void tma_load(void *shared, const TensorMap *map, unsigned long long *bar, const int (&at)[3], unsigned rank,
              Place place) {
    const Unseen unseen;
    Transfer load = transfer(map, shared, at, rank, "TMA load", place);
    load.bar = mbarrier_offset(bar, "TMA load", place);
    mbarrier(load.bar, "TMA load", place);
    // The issuing thread answers for the write: it must have been told that the stage is free.
    note_write(shared, tile_bytes(load.map.spec));
    release(worker().shared + load.bar);
    Worker &w = worker();
    if (w.lazy() && !(w.order() == Order::random && w.draw(2))) {
        w.loads.push_back(load);
    } else {
        run_load(load);
    }
}

void tma_store(const TensorMap *map, const void *shared, const int (&at)[3], unsigned rank, Place place) {
    const Unseen unseen;
    const Transfer store = transfer(map, shared, at, rank, "TMA store", place);
    if (worker().lazy()) {
        self().place = place;
        self().stores.push(store);
    } else {
        run_store(store);
    }
}

void tma_store_commit() {
    const Unseen unseen;
    self().stores.commit();
}

void tma_store_wait(unsigned pending) {
    const Unseen unseen;
    self().stores.wait(pending, run_store);
}

// ---- wgmma ------------------------------------------------------------------------------------------------

namespace {

constexpr unsigned WGMMA_M = 64, WGMMA_K = 16, WGMMA_MAX_N = 256;

// A matrix operand in shared memory behind a descriptor (128-byte swizzle), read in chunks of 8 values: 8 of
// k for a K-major operand, 8 of the row (or column) for an MN-major one.
struct SharedOperand {
    unsigned start, leading, stride;
    bool mn_major;
    Place place;

    SharedOperand(unsigned long long descriptor, bool mn_major, Place place)
        : start(field(descriptor, 0)), leading(field(descriptor, 16)), stride(field(descriptor, 32)),
          mn_major(mn_major), place(place) {
        if (descriptor >> 62 != 1) {
            fail(place, "wgmma: only descriptors of the 128-byte swizzle are emulated");
        }
    }
    static unsigned field(unsigned long long descriptor, unsigned bit) {
        return unsigned(descriptor >> bit & 0x3fff) << 4;
    }
    const unsigned char *chunk(unsigned mn, unsigned k) const {
        const unsigned along = mn_major ? mn / 64 * leading + k / 8 * stride + k % 8 * 128 + mn % 64 * 2
                                        : mn / 8 * stride + mn % 8 * 128 + k * 2;
        const unsigned offset = swizzled(start + along, 128);
        const unsigned char *at = current->block->shared + offset;
        shared_offset(at, 16, 16, "wgmma", place);
        return at;
    }
    // Calls `f(mn, k, value)` for `extent` rows (or columns) and 16 values of k.
    template <class F> void each(unsigned extent, F &&f) const {
        for (unsigned outer = 0; outer < (mn_major ? WGMMA_K : extent); outer++) {
            for (unsigned inner = 0; inner < (mn_major ? extent : WGMMA_K); inner += 8) {
                uint16_t values[8];
                memcpy(values, mn_major ? chunk(inner, outer) : chunk(outer, inner), sizeof values);
                for (unsigned e = 0; e < 8; e++) {
                    f(mn_major ? inner + e : outer, mn_major ? outer : inner + e, bf16_value(values[e]));
                }
            }
        }
    }
    // Tells the race checker that the running thread reads the operand.
    void note(unsigned extent) const {
        for (unsigned outer = 0; outer < (mn_major ? WGMMA_K : extent); outer++) {
            for (unsigned inner = 0; inner < (mn_major ? extent : WGMMA_K); inner += 8) {
                note_read(mn_major ? chunk(inner, outer) : chunk(outer, inner), 16);
            }
        }
    }
};

// Row and column of accumulator `i` of thread `t` of the warpgroup.
unsigned accumulator_row(unsigned t, unsigned i) { return t / 32 * 16 + t % 32 / 4 + (i & 2 ? 8 : 0); }
unsigned accumulator_col(unsigned t, unsigned i) { return i / 4 * 8 + t % 4 * 2 + (i & 1); }

void read_a(const PendingWgmma &op, float (&a)[WGMMA_M][WGMMA_K]) {
    if (!op.operands.a_registers) {
        SharedOperand(op.operands.a, op.operands.a_mn_major, op.place)
            .each(WGMMA_M, [&](unsigned m, unsigned k, float v) { a[m][k] = v; });
        return;
    }
    for (unsigned t = 0; t < WARPGROUP; t++) {
        for (unsigned r = 0; r < 4; r++) {
            for (unsigned h = 0; h < 2; h++) {
                const unsigned row = t / 32 * 16 + t % 32 / 4 + (r & 1) * 8;
                a[row][t % 4 * 2 + (r / 2) * 8 + h] = bf16_half(op.a[t][r], h);
            }
        }
    }
}

void run_wgmma(const PendingWgmma &op) {
    static thread_local float a[WGMMA_M][WGMMA_K];
    static thread_local double b[WGMMA_K][WGMMA_MAX_N], sum[WGMMA_M][WGMMA_MAX_N];
    const unsigned n = op.operands.n;
    read_a(op, a);
    SharedOperand(op.operands.b, op.operands.b_mn_major, op.place)
        .each(n, [&](unsigned j, unsigned k, float v) { b[k][j] = v; });
    for (unsigned t = 0; t < WARPGROUP; t++) {
        for (unsigned i = 0; i < n / 2; i++) {
            sum[accumulator_row(t, i)][accumulator_col(t, i)] = op.operands.accumulate ? op.d[t][i] : 0.0f;
        }
    }
    for (unsigned i = 0; i < WGMMA_M; i++) {
        for (unsigned k = 0; k < WGMMA_K; k++) {
            for (unsigned j = 0; j < n; j++) {
                sum[i][j] += a[i][k] * b[k][j];
            }
        }
    }
    for (unsigned t = 0; t < WARPGROUP; t++) {
        for (unsigned i = 0; i < n / 2; i++) {
            op.d[t][i] = cut_off(sum[accumulator_row(t, i)][accumulator_col(t, i)]);
        }
    }
}

// One thread of each warp answers for what the warpgroup reads, when an instruction starts and when it ends.
void note_operands([[maybe_unused]] const Wgmma &operands, [[maybe_unused]] Place place) {
#ifdef DUEL_SIMT_RACE
    if (current->linear % 32 == 0) {
        if (!operands.a_registers) {
            SharedOperand(operands.a, operands.a_mn_major, place).note(WGMMA_M);
        }
        SharedOperand(operands.b, operands.b_mn_major, place).note(operands.n);
    }
#endif
}

Warpgroup &warpgroup() { return worker().warpgroups[current->linear / WARPGROUP]; }

} // namespace

void wgmma(const Wgmma &operands, Place place) {
    const Unseen unseen;
    Wgmma mine = operands;
    note_operands(mine, place);
    auto issue = [place](void *const *threads) {
        if (!warpgroup().fenced) {
            fail(place, "wgmma: no wgmma_fence since the last wait, registers may still be in use");
        }
        PendingWgmma op{};
        op.operands = *static_cast<const Wgmma *>(threads[0]);
        op.place = place;
        for (unsigned t = 0; t < WARPGROUP; t++) {
            const Wgmma &thread = *static_cast<const Wgmma *>(threads[t]);
            const bool same_a = op.operands.a_registers || thread.a == op.operands.a;
            if (!same_a || thread.b != op.operands.b) {
                fail(place, "wgmma: descriptors differ between threads of the warpgroup");
            }
            op.d[t] = thread.d;
            if (thread.a_registers) {
                std::copy_n(thread.a_registers, 4, op.a[t]);
            }
        }
        if (worker().lazy()) {
            warpgroup().queue.push(op);
        } else {
            run_wgmma(op);
        }
    };
    meet_warpgroup(&mine, "wgmma", place, action_of(issue));
}

void wgmma_fence(Place place) {
    auto set = [](void *const *) { warpgroup().fenced = true; };
    meet_warpgroup(nullptr, "wgmma_fence", place, action_of(set));
}

void wgmma_commit(Place place) {
    auto commit = [](void *const *) { warpgroup().queue.commit(); };
    meet_warpgroup(nullptr, "wgmma_commit", place, action_of(commit));
}

void wgmma_wait(unsigned pending, Place place) {
    const Unseen unseen;
    warpgroup().queue.ending(pending, [](const PendingWgmma &op) { note_operands(op.operands, op.place); });
    auto wait = [pending](void *const *) {
        warpgroup().queue.wait(pending, run_wgmma);
        warpgroup().fenced = false;
    };
    meet_warpgroup(nullptr, "wgmma_wait", place, action_of(wait));
}

// ---- blocks -----------------------------------------------------------------------------------------------

namespace {

void check_exit() {
    Fiber &me = self();
    Worker &w = worker();
    if (!me.copies.empty()) {
        fail(me.place, "cp.async copies outstanding at exit");
    }
    if (!me.stores.empty()) {
        fail(me.place, "TMA stores outstanding at exit");
    }
    if (w.live > 1) {
        return;
    }
    if (!w.loads.empty()) {
        fail(w.loads[0].place, "TMA loads outstanding at exit");
    }
    for (Warpgroup &group : w.warpgroups) {
        for (const auto &pending : group.queue.groups) {
            if (!pending.empty()) {
                fail(pending[0].place, "wgmma outstanding at exit");
            }
        }
    }
}

// The bottom of every fiber's stack.
void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
    Worker &entered = worker();
    const bool first = !entered.home_stack;
    __sanitizer_finish_switch_fiber(nullptr, first ? &entered.home_stack : nullptr,
                                    first ? &entered.home_stack_bytes : nullptr);
#endif
    Worker &w = worker();
    acquire(&w.started);
    w.kernel.call(w.arguments);
    check_exit();
    release(&w.ended);
    w.alive[warp_index()] &= ~lane_bit();
    w.ready[warp_index()] &= ~lane_bit();
    w.live--;
    // __syncthreads does not wait for threads that have ended.
    Group &all = w.barriers[0];
    if (w.live && all.arrived == w.live && all.count == 0) {
        complete(w, all);
    }
    yield();
    abort();
}

// Stacks of an OS thread's fibers, each with a page at its end that nothing may touch.
class Stacks {
  public:
    Stacks() = default;
    Stacks(const Stacks &) = delete;
    Stacks &operator=(const Stacks &) = delete;
    ~Stacks() { unmap(); }

    unsigned char *get(unsigned count) {
        if (count > count_) {
            unmap();
            void *at = mmap(nullptr, STACK_BYTES * count, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (at == MAP_FAILED) {
                perror("simt: stacks");
                abort();
            }
            at_ = static_cast<unsigned char *>(at);
            count_ = count;
            for (unsigned i = 0; i < count; i++) {
                mprotect(at_ + STACK_BYTES * i, PAGE, PROT_NONE);
            }
        }
        return at_;
    }

  private:
    void unmap() {
        if (at_) {
            munmap(at_, STACK_BYTES * count_);
        }
    }
    unsigned char *at_ = nullptr;
    unsigned count_ = 0;
};

void prepare_fiber(Worker &w, unsigned linear, unsigned char *stack) {
    Fiber &f = w.fibers[linear];
    f.linear = linear;
    f.block = &w;
    f.index = {linear % w.dim.x, linear / w.dim.x % w.dim.y, linear / (w.dim.x * w.dim.y)};
    f.stack = stack;
    f.unseen = 0;
    f.what = "its start";
    f.place = Place::current();
    f.copies.reset();
    f.stores.reset();
#ifdef DUEL_SIMT_RACE
    f.sanitizer = w.sanitizer_fibers[linear];
#else
    f.sanitizer = nullptr;
#endif
    // Tops that differ between fibers, so that they do not fight for the same cache sets.
    auto **top = reinterpret_cast<void **>(stack + STACK_BYTES - 64 - linear % 16 * 192);
    *--top = nullptr;                               // fiber_main does not return
    *--top = reinterpret_cast<void *>(&fiber_main); // where the first switch returns to
    for (unsigned saved = 0; saved < 6; saved++) {
        *--top = nullptr;
    }
    f.stack_pointer = top;
}

void reset_groups(Worker &w) {
    for (auto &groups : w.warp_groups) {
        for (Group &group : groups) {
            group = {};
        }
    }
    for (Group &group : w.barriers) {
        group = {};
    }
    for (Warpgroup &wg : w.warpgroups) {
        wg.group = {};
        wg.queue.reset();
        wg.fenced = false;
    }
    w.mbarriers.clear();
    w.loads.clear();
}

void run_block(Worker &w) {
    static thread_local Stacks stacks;
    unsigned char *stack = stacks.get(w.threads);
    w.live = w.threads;
    for (unsigned i = 0; i < MAX_WARPS; i++) {
        w.ready[i] = w.alive[i] = i < w.warps ? existing_lanes(w.threads, i) : 0;
        w.polling[i] = 0;
    }
    reset_groups(w);
    for (unsigned t = 0; t < w.threads; t++) {
        prepare_fiber(w, t, stack + STACK_BYTES * t);
    }
    Fiber &first = w.fibers[w.order() == Order::reverse ? w.threads - 1 : 0];
    current = &first;
    w.home_stack = nullptr;
    w.home_stack_bytes = 0;
#ifdef DUEL_SIMT_RACE
    w.home_sanitizer = __tsan_get_current_fiber();
#endif
    release(&w.started);
    switch_stacks(&w.home, &w.home_sanitizer, first.sanitizer, first.stack_pointer, first.stack, STACK_BYTES);
#ifdef DUEL_SIMT_RACE
    if (!w.error.empty()) {
        w.sanitizer_fibers.abandon(&w.ended);
    }
#endif
    acquire(&w.ended);
    current = nullptr;
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(stack, STACK_BYTES * w.threads); // abandoned frames
#endif
}

// Shared memory with guards before and after it.
class SharedMemory {
  public:
    explicit SharedMemory(size_t bytes) : bytes_(bytes), storage_(bytes + 3 * GUARD_BYTES) {
        const auto at = reinterpret_cast<uintptr_t>(storage_.data()) + GUARD_BYTES;
        data_ = reinterpret_cast<unsigned char *>((at + 1023) & ~uintptr_t(1023));
        memset(data_ - GUARD_BYTES, GUARD, GUARD_BYTES);
        memset(data_ + bytes_, GUARD, GUARD_BYTES);
#ifdef __SANITIZE_ADDRESS__
        __asan_poison_memory_region(data_ - GUARD_BYTES, GUARD_BYTES);
        __asan_poison_memory_region(data_ + bytes_, GUARD_BYTES);
#endif
    }
    ~SharedMemory() {
#ifdef __SANITIZE_ADDRESS__
        __asan_unpoison_memory_region(storage_.data(), storage_.size());
#endif
    }
    SharedMemory(const SharedMemory &) = delete;
    SharedMemory &operator=(const SharedMemory &) = delete;

    unsigned char *data() const { return data_; }
    void poison() { memset(data_, 0xff, bytes_); } // NaNs, as float and as bf16

    // What was written outside, if anything: under ASan the write itself is reported.
    std::string trespass() const {
#ifndef __SANITIZE_ADDRESS__
        for (size_t i = 0; i < GUARD_BYTES; i++) {
            if (data_[bytes_ + i] != GUARD) {
                return "shared memory was written at offset " + std::to_string(bytes_ + i) + ", past its " +
                       std::to_string(bytes_) + " bytes";
            }
            if (data_[-1 - long(i)] != GUARD) {
                return "shared memory was written " + std::to_string(i + 1) + " bytes before its start";
            }
        }
#endif
        return {};
    }

  private:
    size_t bytes_;
    std::vector<unsigned char> storage_;
    unsigned char *data_;
};

// ---- launches ---------------------------------------------------------------------------------------------

std::vector<Kernel> &registry() {
    static std::vector<Kernel> kernels;
    return kernels;
}

const Kernel *find_kernel(const char *name) {
    for (const Kernel &kernel : registry()) {
        if (!strcmp(kernel.name, name)) {
            return &kernel;
        }
    }
    return nullptr;
}

// Blocks in the order in which they run.
std::vector<unsigned> block_order(unsigned count, const SimtOptions &options) {
    std::vector<unsigned> order(count);
    for (unsigned i = 0; i < count; i++) {
        order[i] = static_cast<Order>(options.order) == Order::reverse ? count - 1 - i : i;
    }
    if (static_cast<Order>(options.order) == Order::random) {
        unsigned long long state = options.seed;
        for (unsigned i = count; i > 1; i--) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            std::swap(order[i - 1], order[(state >> 33) % i]);
        }
    }
    return order;
}

// Why a device would refuse the launch, or nothing.
std::string refusal(const Kernel &kernel, const unsigned *grid, const unsigned *block, size_t shared,
                    void *const *arguments) {
    const std::string name = kernel.name;
    const unsigned long long threads = 1ull * block[0] * block[1] * block[2];
    if (threads == 0 || threads > kernel.max_threads) {
        return name + ": a block of " + std::to_string(threads) + " threads, its launch bound is " +
               std::to_string(kernel.max_threads);
    }
    const unsigned long long blocks = 1ull * grid[0] * grid[1] * grid[2];
    if (blocks == 0 || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535) {
        return name + ": a grid of " + std::to_string(grid[0]) + " x " + std::to_string(grid[1]) + " x " +
               std::to_string(grid[2]) + " blocks";
    }
    if (shared > MAX_SHARED_BYTES) {
        return name + ": " + std::to_string(shared) + " bytes of shared memory, a block can have " +
               std::to_string(MAX_SHARED_BYTES);
    }
    for (unsigned i = 0; i < kernel.parameter_count; i++) {
        if (reinterpret_cast<uintptr_t>(arguments[i]) % kernel.parameters[i].align) {
            return name + ": parameter " + std::to_string(i) + " is not aligned to " +
                   std::to_string(kernel.parameters[i].align) + " bytes";
        }
    }
    return {};
}

struct Launch {
    const SimtOptions &options;
    const Kernel &kernel;
    uint3 grid, block;
    size_t shared;
    void *const *arguments;
    std::vector<unsigned> order;
    std::atomic<unsigned> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex{};
    std::string error{};

    void fail_with(const std::string &message) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!failed.exchange(true)) {
            error = message;
        }
    }

    // Runs blocks until there are none left or one failed.
    void work() {
        SharedMemory memory(shared);
        Worker w{{{}, block, grid, memory.data(), shared}, options, kernel, arguments};
        for (unsigned i; !failed && (i = next++) < order.size();) {
            const unsigned b = order[i];
            w.index = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
            w.random = options.seed + 0x9e3779b97f4a7c15ull * (b + 1);
            memory.poison();
            run_block(w);
            const std::string trespass = memory.trespass();
            if (!w.error.empty()) {
                fail_with(w.error);
            } else if (!trespass.empty()) {
                fail_with(std::string(kernel.name) + ": " + trespass);
            }
        }
    }

    void run() {
        const unsigned threads = std::min<unsigned>(std::max(1u, options.os_threads), unsigned(order.size()));
        std::vector<std::thread> helpers;
        for (unsigned i = 1; i < threads; i++) {
            helpers.emplace_back([this] { work(); });
        }
        work();
        for (std::thread &helper : helpers) {
            helper.join();
        }
    }
};

int report(const std::string &message, char *error, size_t error_bytes) {
    snprintf(error, error_bytes, "%s", message.c_str());
    return 1;
}

std::string map_refusal(const TensorMapSpec &spec) {
    if (spec.rank != 2 && spec.rank != 3) {
        return "rank " + std::to_string(spec.rank);
    }
    if (spec.base % 16) {
        return "a base that is not a multiple of 16";
    }
    if (spec.element_bytes != 2 && spec.element_bytes != 4) {
        return "elements of " + std::to_string(spec.element_bytes) + " bytes";
    }
    const unsigned row = spec.tile[0] * spec.element_bytes;
    if (row % 16) {
        return "a box row of " + std::to_string(row) + " bytes, not a multiple of 16";
    }
    if (spec.swizzle_bytes != 0 && spec.swizzle_bytes != 32 && spec.swizzle_bytes != 64 &&
        spec.swizzle_bytes != 128) {
        return "a swizzle of " + std::to_string(spec.swizzle_bytes) + " bytes";
    }
    if (spec.swizzle_bytes && row > spec.swizzle_bytes) {
        return "a box row of " + std::to_string(row) + " bytes, wider than the swizzle";
    }
    for (unsigned d = 0; d < spec.rank; d++) {
        if (spec.tile[d] == 0 || spec.tile[d] > 256) {
            return "a box of " + std::to_string(spec.tile[d]) + " elements along a dimension";
        }
        if (spec.extents[d] == 0) {
            return "an empty dimension";
        }
        if (d && spec.strides[d - 1] % 16) {
            return "a stride of " + std::to_string(spec.strides[d - 1]) + " bytes, not a multiple of 16";
        }
    }
    return {};
}

} // namespace

Registration::Registration(const Kernel &kernel) { registry().push_back(kernel); }

} // namespace simt

// Runs a kernel by name and waits for it. Returns 0, or 1 with a message in `error`.
extern "C" int duel_simt_launch(const SimtOptions *options, const char *name, const unsigned grid[3],
                                const unsigned block[3], size_t shared, void *const *arguments, char *error,
                                size_t error_bytes) {
    using namespace simt;
    const Kernel *kernel = find_kernel(name);
    if (!kernel) {
        return report(std::string("there is no kernel ") + name, error, error_bytes);
    }
    const std::string refused = refusal(*kernel, grid, block, shared, arguments);
    if (!refused.empty()) {
        return report(refused, error, error_bytes);
    }
    Launch launch{*options,
                  *kernel,
                  {grid[0], grid[1], grid[2]},
                  {block[0], block[1], block[2]},
                  shared,
                  arguments,
                  block_order(grid[0] * grid[1] * grid[2], *options)};
    launch.run();
    return launch.failed ? report(launch.error, error, error_bytes) : 0;
}

// Builds a tensor map that TMA instructions of the emulation understand. Returns 0, or 1 with what the driver
// would refuse in `error`.
extern "C" int duel_simt_tensor_map(TensorMap *map, const TensorMapSpec *spec, char *error,
                                    size_t error_bytes) {
    using namespace simt;
    const std::string refused = map_refusal(*spec);
    if (!refused.empty()) {
        return report("tensor map: " + refused, error, error_bytes);
    }
    const HostMap host{*spec, MAP_MAGIC};
    memset(map, 0, sizeof *map);
    memcpy(map, &host, sizeof host);
    return 0;
}

// Calls `visit(context, name, max_threads)` for every registered kernel.
extern "C" void duel_simt_kernels(void (*visit)(void *context, const char *name, unsigned max_threads),
                                  void *context) {
    for (const simt::Kernel &kernel : simt::registry()) {
        visit(context, kernel.name, kernel.max_threads);
    }
}

// Calls `visit(context, type, bytes, align)` for every parameter of a kernel, in order. Returns 0, or 1 when
// there is no such kernel.
extern "C" int duel_simt_parameters(const char *name,
                                    void (*visit)(void *context, const char *type, size_t bytes,
                                                  size_t align),
                                    void *context) {
    const simt::Kernel *kernel = simt::find_kernel(name);
    for (unsigned i = 0; kernel && i < kernel->parameter_count; i++) {
        const simt::Parameter &parameter = kernel->parameters[i];
        visit(context, parameter.type(), parameter.bytes, parameter.align);
    }
    return kernel ? 0 : 1;
}

/* A stand-in for libnvidia-ml.so.1, for the calls that nvidia-ml-py really makes.
 *
 * NVML_STANDIN picks the machine:
 *   healthy   eight cards of 24 GiB that answer everything
 *   maxwell   one old card that refuses most calls
 *   mig       one card in MIG mode with two slices
 *   sullen    one card that tells its name and refuses everything else
 *   mismatch  the library and the kernel driver differ: nvmlInit fails
 * NVML_STANDIN_TRIGGER names a file. While it exists and holds "lost N", "reset N", "hang N" or "crash N",
 * card N is off the bus, does not come back from its calls, or takes the process down. With
 * "freeze 0" no call comes back, and "upgrade 0" is a kernel driver that was replaced: nvmlInit
 * fails from then on, whoever has it open goes on. With
 * "gone N" it is not listed, with "mig N" it is in MIG mode. A card that is gone as the library is
 * initialised stays so until that is done again. With "mute N", "dim N" and "listless N" it fails
 * to list its compute or its graphics processes for now, or supports no lists. With "deaf N" it
 * does not say for now whether it reports errors.
 * With "deny N", "ignore N" and "stall N" it refuses a compute mode, accepts it and stays as it
 * is, or does not come back from being set. NVML_STANDIN_MODES names a file with a digit for each
 * card, its compute mode, which outlives the process as the kernel's does; without it all are in
 * exclusive-process mode.
 * NVML_STANDIN_XIDS names a file of lines "card xid": errors, reported to whoever has registered
 * for them when a line is added. NVML_STANDIN_FIELDS names one of lines "card field value", of the
 * numbered fields; field 1000 stands for the reasons of throttling, and of two lines the last holds.
 * Compiled with -DOLD_DRIVER it lacks the symbols that came after driver 470.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int nvmlReturn_t;
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4,
    NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10, GPU_IS_LOST = 15, RESET_REQUIRED = 16, VERSION_MISMATCH = 18, UNKNOWN = 999,
};

typedef struct { int number; int slice; } Device; /* slice 0: the card itself */
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; unsigned long long used; unsigned instance, compute; } Process;
typedef struct {
    char busIdLegacy[16]; unsigned domain, bus, device, deviceId, subsystemId; char busId[32];
} Pci;

typedef struct {
    unsigned field, scope; long long timestamp, latency; int type; nvmlReturn_t outcome;
    unsigned long long value;
} FieldValue;
typedef struct {
    Device *device; unsigned long long type, data; unsigned instance, compute;
} Event;

#define GIB (1ull << 30)
#define MAX_CARDS 8
#define MAX_SLICES 2

static Device devices[MAX_CARDS][MAX_SLICES + 1];
static unsigned long refused_calls; /* by the maxwell card: the binding must not insist */

static int machine_is(const char *name) {
    const char *machine = getenv("NVML_STANDIN");
    return strcmp(machine ? machine : "healthy", name) == 0;
}

/* Number of the card that the trigger file gives this word for, or -1. */
static int triggered(const char *word) {
    const char *path = getenv("NVML_STANDIN_TRIGGER");
    FILE *file = path ? fopen(path, "r") : NULL;
    char found[16] = "";
    int number = -1;
    if (file) {
        if (fscanf(file, "%15s %d", found, &number) != 2 || strcmp(found, word) != 0) number = -1;
        fclose(file);
    }
    return number;
}

static int gone_at_init = -1;

static int gone_card(void) {
    int now = triggered("gone");
    return now >= 0 ? now : gone_at_init;
}

static int card_count(void) {
    return (machine_is("healthy") ? MAX_CARDS : 1) - (gone_card() >= 0);
}

static int in_mig_mode(const Device *device) {
    return machine_is("mig") || triggered("mig") == device->number;
}

static void refuse(void) {
    const char *path = getenv("NVML_STANDIN_REFUSALS");
    FILE *file = path ? fopen(path, "w") : NULL;
    refused_calls++;
    if (file) { fprintf(file, "%lu", refused_calls); fclose(file); }
}

static void freeze(void) { while (triggered("freeze") >= 0) usleep(20000); }

/* What every call that reads a device meets first. */
static nvmlReturn_t enter(const Device *device) {
    freeze();
    while (triggered("hang") == device->number) usleep(20000);
    if (triggered("crash") == device->number) abort();
    if (triggered("reset") == device->number) return RESET_REQUIRED;
    return triggered("lost") == device->number ? GPU_IS_LOST : SUCCESS;
}

/* What a call that reads a device meets unless it only asks who it is. */
#define REFUSE_SULLEN() do { if (machine_is("sullen")) { refuse(); return NOT_SUPPORTED; } } while (0)
#define ENTER(device) do { \
    nvmlReturn_t r_ = enter(device); if (r_ != SUCCESS) return r_; REFUSE_SULLEN(); } while (0)
#define REFUSE_IF_OLD(why) do { if (machine_is("maxwell")) { refuse(); return why; } } while (0)
#define REFUSE_SLICE(device) do { if ((device)->slice) return NOT_SUPPORTED; } while (0)
#define REFUSE_MIG(device) do { if (in_mig_mode(device)) return NOT_SUPPORTED; } while (0)

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    freeze();
    if (machine_is("mismatch") || triggered("upgrade") >= 0) return VERSION_MISMATCH;
    gone_at_init = triggered("gone");
    for (int card = 0; card < MAX_CARDS; card++)
        for (int slice = 0; slice <= MAX_SLICES; slice++)
            devices[card][slice] = (Device){card, slice};
    return SUCCESS;
}

nvmlReturn_t nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(nvmlReturn_t code) { (void)code; return "an error of the stand-in"; }

nvmlReturn_t nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, machine_is("maxwell") ? "470.256.02" : "550.163.01");
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    freeze();
    *count = card_count();
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    if (index >= (unsigned)card_count()) return INVALID_ARGUMENT;
    int gone = gone_card();
    *device = &devices[gone >= 0 && index >= (unsigned)gone ? index + 1 : index][0];
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(Device *device, char *text, unsigned size) {
    if (device->slice) snprintf(text, size, "MIG-standin-%d-%d", device->number, device->slice);
    else snprintf(text, size, "GPU-standin-%d", device->number);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetName(Device *device, char *text, unsigned size) {
    if (machine_is("maxwell")) snprintf(text, size, "NVIDIA GeForce GTX TITAN X");
    else if (device->slice) snprintf(text, size, "Stand-in 24GB MIG 1g.6gb");
    else snprintf(text, size, "Stand-in 24GB");
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(Device *device, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    pci->bus = device->number + 1;
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", pci->bus);
    return SUCCESS;
}

static unsigned long long total_of(const Device *device) {
    if (machine_is("maxwell")) return 12 * GIB;
    return device->slice ? 6 * GIB : 24 * GIB;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    ENTER(device);
    memory->total = total_of(device);
    memory->used = GIB + GIB / 2; /* v1 counts the driver's own half GiB as used */
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

#ifndef OLD_DRIVER
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *memory) {
    ENTER(device);
    memory->total = total_of(device);
    memory->reserved = GIB / 2;
    memory->used = GIB;
    memory->free = memory->total - memory->used - memory->reserved;
    return SUCCESS;
}
#endif

nvmlReturn_t nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) {
    ENTER(device);
    REFUSE_SLICE(device);
    REFUSE_MIG(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    rates->gpu = 42;
    rates->memory = 17;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *celsius) {
    (void)sensor;
    ENTER(device);
    REFUSE_SLICE(device);
    *celsius = 40 + device->number;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) {
    ENTER(device);
    REFUSE_SLICE(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    *milliwatts = 61500;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned *milliwatts) {
    ENTER(device);
    REFUSE_SLICE(device);
    REFUSE_IF_OLD(NO_PERMISSION);
    *milliwatts = 350000;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetFanSpeed(Device *device, unsigned *percent) {
    ENTER(device);
    REFUSE_SLICE(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    *percent = 30;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetClockInfo(Device *device, int clock, unsigned *mhz) {
    ENTER(device);
    REFUSE_SLICE(device);
    REFUSE_IF_OLD(UNKNOWN);
    *mhz = clock == 2 ? 9751 : 1395;
    return SUCCESS;
}

static void read_modes(char *modes) {
    const char *path = getenv("NVML_STANDIN_MODES");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file || fscanf(file, "%8s", modes) != 1) strcpy(modes, "33333333");
    if (file) fclose(file);
}

static nvmlReturn_t write_modes(const char *modes) {
    const char *path = getenv("NVML_STANDIN_MODES");
    char fresh[4096];
    if (!path) return UNKNOWN;
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "w");
    if (!file) return UNKNOWN;
    fprintf(file, "%s", modes);
    fclose(file);
    return rename(fresh, path) == 0 ? SUCCESS : UNKNOWN;
}

nvmlReturn_t nvmlDeviceGetComputeMode(Device *device, int *mode) {
    ENTER(device);
    REFUSE_SLICE(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    char modes[MAX_CARDS + 1];
    read_modes(modes);
    *mode = modes[device->number] - '0';
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceSetComputeMode(Device *device, int mode) {
    ENTER(device);
    REFUSE_SLICE(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    while (triggered("stall") == device->number) usleep(20000);
    if (triggered("deny") == device->number) return NO_PERMISSION;
    if (mode < 0 || mode > 3) return INVALID_ARGUMENT;
    if (triggered("ignore") == device->number) return SUCCESS;
    char modes[MAX_CARDS + 1];
    static int taken; /* cards are set by threads of their own */
    while (__sync_lock_test_and_set(&taken, 1)) usleep(100);
    read_modes(modes);
    modes[device->number] = '0' + mode;
    nvmlReturn_t outcome = write_modes(modes);
    __sync_lock_release(&taken);
    return outcome;
}

/* Cards 0 to 3 are near node 0 with CPUs 0-15, the others near node 1 with CPUs 16-31. */
nvmlReturn_t nvmlDeviceGetCpuAffinity(Device *device, unsigned words, unsigned long long *set) {
    ENTER(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    memset(set, 0, words * sizeof *set);
    set[0] = device->number < 4 ? 0xffffull : 0xffffull << 16;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryAffinity(
    Device *device, unsigned words, unsigned long long *set, int scope) {
    ENTER(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    if (scope != 0) return INVALID_ARGUMENT;
    memset(set, 0, words * sizeof *set);
    set[0] = device->number < 4 ? 1 : 2;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    ENTER(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    *current = *pending = in_mig_mode(device);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) {
    *count = in_mig_mode(device) ? 7 : 0;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(Device *card, unsigned index, Device **slice) {
    /* Slots 0 and 2 are taken, the others are empty. */
    if (!in_mig_mode(card) || index > 2 || index == 1) return NOT_FOUND;
    *slice = &devices[card->number][index / 2 + 1];
    return SUCCESS;
}

/* The caller asks twice: for the count, then with room for more than that. */
static nvmlReturn_t list(const Process *found, unsigned count, unsigned *room, Process *out) {
    unsigned had = *room;
    *room = count;
    if (count == 0) return SUCCESS;
    if (!out || had < count) return INSUFFICIENT_SIZE;
    memcpy(out, found, count * sizeof *found);
    return SUCCESS;
}

static nvmlReturn_t list_compute(Device *device, unsigned *room, Process *out) {
    /* The caller itself, and one whose memory the driver does not tell. */
    Process found[] = {{getpid(), GIB, 0, 0}, {4194303, ~0ull, 0, 0}};
    ENTER(device);
    if (triggered("mute") == device->number) return UNKNOWN;
    if (triggered("listless") == device->number) return NOT_SUPPORTED;
    return list(found, device->number == 0 ? 2 : 0, room, out);
}

static nvmlReturn_t list_graphics(Device *device, unsigned *room, Process *out) {
    Process found[] = {{getpid(), GIB, 0, 0}, {1, 64 << 20, 0, 0}};
    ENTER(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    if (triggered("dim") == device->number) return UNKNOWN;
    return list(found, device->number == 0 ? 2 : 0, room, out);
}

#define LIST(what, how, version) \
    nvmlReturn_t nvmlDeviceGet##what##RunningProcesses##version( \
        Device *device, unsigned *room, Process *out) { return how(device, room, out); }

LIST(Compute, list_compute, _v2)
LIST(Graphics, list_graphics, _v2)
#ifndef OLD_DRIVER
LIST(Compute, list_compute, _v3)
LIST(Graphics, list_graphics, _v3)

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(Device *d, unsigned *room, Process *out) {
    ENTER(d);
    return list(NULL, 0, room, out);
}
#endif

/* The numbered fields and their like. */

enum { THROTTLING = 1000, XID_EVENT = 8, LINKS = 4 };

/* Whether the file says what a field of this card is; the last line that does holds. */
static int scripted(const Device *device, unsigned field, unsigned long long *value) {
    const char *path = getenv("NVML_STANDIN_FIELDS");
    FILE *file = path ? fopen(path, "r") : NULL;
    int card, found = 0;
    unsigned of;
    unsigned long long said;
    while (file && fscanf(file, "%d %u %llu", &card, &of, &said) == 3)
        if (card == device->number && of == field) { *value = said; found = 1; }
    if (file) fclose(file);
    return found;
}

static long long now_micros(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000ll + now.tv_nsec / 1000;
}

/* What a card of today shows; 0 for a field that it does not have. */
static int usual(const Device *device, unsigned field, unsigned scope, unsigned long long *value) {
    switch (field) {
    case 1: *value = 1; return 1;                                    /* ECC is on */
    case 3: case 4: case 29: case 30: case 94: *value = 0; return 1; /* errors, pages, replays */
    case 38: case 45: case 52: case 59: *value = 0; return 1;        /* errors of links */
    case 82: *value = 50 + device->number; return 1;                 /* memory temperature */
    case 83: *value = 7200000; return 1;                             /* energy, mJ */
    case 138: case 139:                                              /* NVLink KiB, by link */
        *value = now_micros() * (field - 137) * (scope == 0xffffffffu ? LINKS : 1);
        return 1;
    case 142: case 143: case 144: case 145: *value = 0; return 1;    /* remapped rows */
    case 197: case 198: *value = now_micros() * (field == 197 ? 2 : 3); return 1; /* PCIe bytes */
    case 230: *value = 0; return 1;                                  /* recovery action: none */
    default: return 0;
    }
}

nvmlReturn_t nvmlDeviceGetFieldValues(Device *device, int count, FieldValue *values) {
    ENTER(device);
    REFUSE_SLICE(device);
    for (int at = 0; at < count; at++) {
        FieldValue *asked = &values[at];
        asked->type = 3;
        asked->timestamp = now_micros();
        int told = scripted(device, asked->field, &asked->value) ||
            (!machine_is("maxwell") && usual(device, asked->field, asked->scope, &asked->value));
        asked->outcome = told ? SUCCESS : NOT_SUPPORTED;
        if (!told) refuse();
    }
    return SUCCESS;
}

static nvmlReturn_t throttling(Device *device, unsigned long long *reasons) {
    ENTER(device);
    REFUSE_SLICE(device);
    *reasons = 1; /* idle */
    scripted(device, THROTTLING, reasons);
    return SUCCESS;
}

/* The call was renamed with driver 535, and kept its old name beside. */
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *reasons) {
    return throttling(device, reasons);
}
#ifndef OLD_DRIVER
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *reasons) {
    return throttling(device, reasons);
}
#endif

#define TELL(name, type, what) \
    nvmlReturn_t nvmlDeviceGet##name(Device *device, type *out) { \
        ENTER(device); \
        REFUSE_SLICE(device); \
        REFUSE_IF_OLD(NOT_SUPPORTED); \
        *out = (what); \
        return SUCCESS; \
    }

TELL(PerformanceState, int, 8)
TELL(CurrPcieLinkGeneration, unsigned, 4)
TELL(CurrPcieLinkWidth, unsigned, 16)

static nvmlReturn_t coder(Device *device, unsigned *percent, unsigned *micros) {
    ENTER(device);
    REFUSE_SLICE(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    *percent = 5;
    *micros = 167000;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEncoderUtilization(Device *device, unsigned *percent, unsigned *micros) {
    return coder(device, percent, micros);
}

nvmlReturn_t nvmlDeviceGetDecoderUtilization(Device *device, unsigned *percent, unsigned *micros) {
    return coder(device, percent, micros);
}

/* Measured while the caller waits; old cards know no other way. */
nvmlReturn_t nvmlDeviceGetPcieThroughput(Device *device, int counter, unsigned *kib) {
    ENTER(device);
    REFUSE_SLICE(device);
    usleep(20000);
    *kib = counter == 0 ? 100 : 200;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkState(Device *device, unsigned link, int *active) {
    ENTER(device);
    REFUSE_SLICE(device);
    REFUSE_IF_OLD(NOT_SUPPORTED);
    if (link >= LINKS) return INVALID_ARGUMENT;
    *active = link != 3; /* one is down */
    return SUCCESS;
}

/* Errors, as they are reported. */

static long heard[MAX_CARDS + 1]; /* how much of the file was there as a card was registered */
static int registered[MAX_CARDS];
static long position;

static FILE *xids(void) {
    const char *path = getenv("NVML_STANDIN_XIDS");
    return path ? fopen(path, "r") : NULL;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(Device *device, unsigned long long *types) {
    ENTER(device);
    if (triggered("deaf") == device->number) return UNKNOWN;
    *types = machine_is("maxwell") ? 0 : XID_EVENT;
    return SUCCESS;
}

nvmlReturn_t nvmlEventSetCreate(void **set) { *set = &position; return SUCCESS; }
nvmlReturn_t nvmlEventSetFree(void *set) { (void)set; return SUCCESS; }

nvmlReturn_t nvmlDeviceRegisterEvents(Device *device, unsigned long long types, void *set) {
    (void)set;
    ENTER(device);
    if (!(types & XID_EVENT) || device->slice) return NOT_SUPPORTED;
    FILE *file = xids();
    if (file) { fseek(file, 0, SEEK_END); heard[device->number] = ftell(file); fclose(file); }
    registered[device->number] = 1;
    return SUCCESS;
}

nvmlReturn_t nvmlEventSetWait_v2(void *set, Event *event, unsigned milliseconds) {
    (void)set;
    (void)milliseconds; /* nobody may wait for it in here */
    freeze();
    int card;
    unsigned long long xid;
    FILE *file = xids();
    if (!file) return TIMEOUT;
    for (;;) {
        fseek(file, position, SEEK_SET);
        if (fscanf(file, "%d %llu\n", &card, &xid) != 2) break;
        long began = position;
        position = ftell(file);
        if (card < 0 || card >= MAX_CARDS || !registered[card] || began < heard[card]) continue;
        memset(event, 0, sizeof *event);
        event->device = &devices[card][0];
        event->type = XID_EVENT;
        event->data = xid;
        fclose(file);
        return SUCCESS;
    }
    fclose(file);
    return TIMEOUT;
}

/* What gpud does not ask, but nvitop and gpustat do: for other monitors, beside which it is measured. */

TELL(Index, unsigned, (unsigned)device->number)
TELL(DisplayActive, int, 0)
TELL(DisplayMode, int, 0)
TELL(PersistenceMode, int, 1)
TELL(PowerManagementLimit, unsigned, 350000)

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor) {
    ENTER(device);
    *major = 8;
    *minor = 6;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(Device *device, int clock, unsigned *mhz) {
    return nvmlDeviceGetClockInfo(device, clock, mhz);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(
    Device *device, int type, int counter, unsigned long long *count) {
    (void)type;
    (void)counter;
    ENTER(device);
    *count = 0;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(Device *device, unsigned *is_slice) {
    *is_slice = device->slice != 0;
    return SUCCESS;
}

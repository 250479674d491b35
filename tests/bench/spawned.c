/* The least that a program which is run to tell of cards does: find the library, open it, read each
 * card once, print. nvidia-smi opens the driver anew besides, which takes far longer. */
#include <dlfcn.h>
#include <stdio.h>

typedef struct { unsigned long long total, free, used; } Memory;

int main(void) {
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library) return 1;
    int (*init)(unsigned) = (int (*)(unsigned))dlsym(library, "nvmlInitWithFlags");
    int (*count)(unsigned *) = (int (*)(unsigned *))dlsym(library, "nvmlDeviceGetCount_v2");
    int (*handle)(unsigned, void **) =
        (int (*)(unsigned, void **))dlsym(library, "nvmlDeviceGetHandleByIndex_v2");
    int (*memory)(void *, Memory *) =
        (int (*)(void *, Memory *))dlsym(library, "nvmlDeviceGetMemoryInfo");
    int (*celsius)(void *, int, unsigned *) =
        (int (*)(void *, int, unsigned *))dlsym(library, "nvmlDeviceGetTemperature");
    unsigned cards = 0, degrees = 0;
    if (!init || !count || !handle || !memory || !celsius || init(0) || count(&cards)) return 1;
    for (unsigned card = 0; card < cards; card++) {
        void *device;
        Memory figures;
        if (handle(card, &device) || memory(device, &figures) || celsius(device, 0, &degrees)) return 1;
        printf("%u: %llu of %llu, %u C\n", card, figures.used, figures.total, degrees);
    }
    return 0;
}

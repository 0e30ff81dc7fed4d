/* Plays inputs that are kept without libFuzzer, as one of the tests: it takes their files as arguments. */
#include <stdint.h>
#include <stdio.h>

#include "check.h"

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count;
static char **files;

static void inputs(void)
{
    static uint8_t data[1 << 16];
    if (LLVMFuzzerInitialize)
        CHECK(!LLVMFuzzerInitialize(&count, &files));
    for (int i = 0; i < count; i++) {
        FILE *file = fopen(files[i], "rb");
        CHECK(file);
        size_t size = fread(data, 1, sizeof data, file);
        CHECK(size && size < sizeof data && !fclose(file));
        CHECK(!LLVMFuzzerTestOneInput(data, size));
    }
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {{"inputs", inputs}};
    count = argc - 1;
    files = argv + 1;
    CHECK(count > 0);
    return RUN_CASES(cases, 1, argv);
}

/*
 * The functions of tools/musl/memory.c, compiled by other names (tests/tools.rs), against a loop over bytes: every length up to 300, forwards, backwards and apart. Prints
 * how many copies were compared, and ends with the first that is wrong.
 */
#include <stdio.h>
#include <stdlib.h>

void *ferrule_memmove(void *, const void *, size_t);
void *ferrule_memcpy(void *restrict, const void *restrict, size_t);

enum { MIDDLE = 400, ROOM = 1200 };

static unsigned char expected[ROOM], copied[ROOM];

static void fill(void)
{
    for (int at = 0; at < ROOM; at++)
        expected[at] = copied[at] = (unsigned char)(at * 31 + at / 256);
}

static void compare(const char *function, const void *returned, int target, int length)
{
    if (returned != copied + target) {
        printf("%s of %d bytes returns another place\n", function, length);
        exit(1);
    }
    for (int at = 0; at < ROOM; at++) {
        if (copied[at] != expected[at]) {
            printf("%s of %d bytes from %d to %d: the byte at %d is wrong\n", function, length, MIDDLE, target, at);
            exit(1);
        }
    }
}

int main(void)
{
    long copies = 0;
    for (int length = 0; length <= 300; length++) {
        for (int distance = -MIDDLE; distance <= MIDDLE; distance++) {
            int target = MIDDLE + distance;
            fill();
            unsigned char source[300];
            for (int at = 0; at < length; at++)
                source[at] = expected[MIDDLE + at];
            for (int at = 0; at < length; at++)
                expected[target + at] = source[at];
            compare("memmove", ferrule_memmove(copied + target, copied + MIDDLE, (size_t)length), target, length);
            copies++;
            if (abs(distance) < length)
                continue;
            for (int at = 0; at < length; at++)
                copied[target + at] = 0;
            compare("memcpy", ferrule_memcpy(copied + target, source, (size_t)length), target, length);
            copies++;
        }
    }
    printf("%ld copies compared\n", copies);
    return 0;
}

/*
 * memcpy and memmove in place of musl's (tools/musl/link): those copy with `rep movsq`, which takes a processor some thirty cycles to begin, and a plugin copies
 * a few bytes more than a thousand times (docs/adr/0015-short-copies.md).
 *
 * Other processors than x86-64 keep musl's. Both functions are here, since musl's memmove jumps into its memcpy.
 */
#if defined __x86_64__
#include <emmintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline __m128i read16(const unsigned char *from)
{
    return _mm_loadu_si128((const __m128i *)from);
}

static inline void write16(unsigned char *to, __m128i value)
{
    _mm_storeu_si128((__m128i *)to, value);
}

/* The first and the last bytes, as many as the type has, which may be partly the same: both are read before either is written, so that the places may overlap. */
#define COPY_BOTH_ENDS(type)                                               \
    do {                                                                   \
        type first, last;                                                  \
        __builtin_memcpy(&first, from, sizeof first);                      \
        __builtin_memcpy(&last, from + length - sizeof last, sizeof last); \
        __builtin_memcpy(to, &first, sizeof first);                        \
        __builtin_memcpy(to + length - sizeof last, &last, sizeof last);   \
    } while (0)

void *memmove(void *target, const void *source, size_t length)
{
    unsigned char *to = target;
    const unsigned char *from = source;
    if (length <= 16) {
        if (length >= 8)
            COPY_BOTH_ENDS(uint64_t);
        else if (length >= 4)
            COPY_BOTH_ENDS(uint32_t);
        else if (length >= 2)
            COPY_BOTH_ENDS(uint16_t);
        else if (length == 1)
            *to = *from;
        return target;
    }
    if (length <= 32) {
        COPY_BOTH_ENDS(__m128i_u);
        return target;
    }
    /* The last 32 bytes are copied as they were, whatever the rest writes over them; so are the first, for a copy that goes backwards. */
    __m128i first = read16(from), second = read16(from + 16);
    __m128i last_but_one = read16(from + length - 32), last = read16(from + length - 16);
    int begins_within_source = (uintptr_t)to - (uintptr_t)from < length;
    if (!begins_within_source) {
        for (size_t at = 32; at + 32 < length; at += 32) {
            __m128i one = read16(from + at), two = read16(from + at + 16);
            write16(to + at, one);
            write16(to + at + 16, two);
        }
    } else {
        for (size_t end = length - 32; end > 32; end -= 32) {
            __m128i one = read16(from + end - 32), two = read16(from + end - 16);
            write16(to + end - 32, one);
            write16(to + end - 16, two);
        }
    }
    write16(to, first);
    write16(to + 16, second);
    write16(to + length - 32, last_but_one);
    write16(to + length - 16, last);
    return target;
}

void *memcpy(void *restrict target, const void *restrict source, size_t length)
{
    return memmove(target, source, length);
}
#endif

/*
 * Names of glibc that Rust's standard library for *-linux-gnu calls and musl has not (tools/musl/link).
 *
 * On 64-bit processors musl has the same types, sizes and constants as glibc in everything that the standard library and these programs use: both take
 * them from the kernel, and where they need not, musl keeps glibc's layout on purpose. What is left are names.
 */

/*
 * libgcc's unwinder asks for the frames of an address here, after it has looked among those that crtbegin registers at the start. A static program
 * has no others.
 */
int _dl_find_object(void *address, void *result)
{
    (void)address;
    (void)result;
    return -1;
}

/* The standard library chooses by this between posix_spawn and fork; musl's posix_spawn can do what it asks for since 1.1.24. */
const char *gnu_get_libc_version(void)
{
    return "2.31";
}

/*
 * musl 1.2.4 took these away for linking: a file's offset has 64 bits with or without them. Each in a section of its own, so that the linker drops what
 * nobody calls; weak, because older versions have them.
 */
#if defined __x86_64__
#define JUMP "jmp "
#elif defined __aarch64__
#define JUMP "b "
#else
#error "no known jump of this processor"
#endif
#define LARGE_FILE(name)                                                                      \
    __asm__(".pushsection .text." #name "64, \"ax\", %progbits\n.weak " #name "64\n.type " #name \
            "64, %function\n" #name "64: " JUMP #name "\n.popsection");

LARGE_FILE(fallocate)
LARGE_FILE(fopen)
LARGE_FILE(fstat)
LARGE_FILE(fstatat)
LARGE_FILE(fstatfs)
LARGE_FILE(fstatvfs)
LARGE_FILE(ftruncate)
LARGE_FILE(getrlimit)
LARGE_FILE(lseek)
LARGE_FILE(lstat)
LARGE_FILE(mmap)
LARGE_FILE(open)
LARGE_FILE(openat)
LARGE_FILE(posix_fadvise)
LARGE_FILE(posix_fallocate)
LARGE_FILE(pread)
LARGE_FILE(preadv)
LARGE_FILE(prlimit)
LARGE_FILE(pwrite)
LARGE_FILE(pwritev)
LARGE_FILE(readdir)
LARGE_FILE(sendfile)
LARGE_FILE(setrlimit)
LARGE_FILE(stat)
LARGE_FILE(statfs)
LARGE_FILE(statvfs)
LARGE_FILE(truncate)

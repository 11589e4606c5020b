/* Random numbers under the name that Rust's standard library imports: wine 8 has no bcryptprimitives.dll, and without it no Rust
   program starts. Only for the wine prefix of the cross tests. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID bytes, ULONG len_bytes); /* RtlGenRandom */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T len_bytes)
{
    while (len_bytes > 0) {
        ULONG part = len_bytes > 4096 ? 4096 : (ULONG)len_bytes;
        if (!SystemFunction036(bytes, part))
            return FALSE;
        bytes += part;
        len_bytes -= part;
    }
    return TRUE;
}

# Defines outrider_utf8proc: the library utf8proc, which Debian ships without a CMake package. Installed beside the
# package's config too.
if(NOT TARGET outrider_utf8proc)
    find_path(OUTRIDER_UTF8PROC_INCLUDE utf8proc.h REQUIRED)
    find_library(OUTRIDER_UTF8PROC_LIBRARY utf8proc REQUIRED)
    add_library(outrider_utf8proc UNKNOWN IMPORTED GLOBAL)
    set_target_properties(outrider_utf8proc PROPERTIES IMPORTED_LOCATION ${OUTRIDER_UTF8PROC_LIBRARY}
                          INTERFACE_INCLUDE_DIRECTORIES ${OUTRIDER_UTF8PROC_INCLUDE})
endif()

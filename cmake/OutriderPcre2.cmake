# Defines outrider_pcre2: the 8-bit PCRE2 library, which Debian ships without a CMake package. Installed beside the
# package's config too.
if(NOT TARGET outrider_pcre2)
    find_path(OUTRIDER_PCRE2_INCLUDE pcre2.h REQUIRED)
    find_library(OUTRIDER_PCRE2_LIBRARY pcre2-8 REQUIRED)
    add_library(outrider_pcre2 UNKNOWN IMPORTED GLOBAL)
    set_target_properties(outrider_pcre2 PROPERTIES IMPORTED_LOCATION ${OUTRIDER_PCRE2_LIBRARY}
                          INTERFACE_INCLUDE_DIRECTORIES ${OUTRIDER_PCRE2_INCLUDE}
                          INTERFACE_COMPILE_DEFINITIONS PCRE2_CODE_UNIT_WIDTH=8)
endif()

# Helpers that every target of the project goes through: warnings, sanitizers, the shared precompiled header.

# What the loops that decide the speed are compiled with in every configuration, sanitizers apart.
set(OUTRIDER_HOT_FLAGS -O3)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # g++ 12.2 crashes in this pass where the precompiled header was made at another level, as in Debug.
    list(APPEND OUTRIDER_HOT_FLAGS $<$<CONFIG:Debug>:-fno-ipa-cp>)
endif()
if(OUTRIDER_SANITIZERS)
    set(OUTRIDER_HOT_FLAGS)
endif()

# Private compile settings of the project's own targets.
function(outrider_settings target)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wno-unknown-pragmas
                           $<$<BOOL:${OUTRIDER_WERROR}>:-Werror>)
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src)  # private headers, "room/name.hpp"
    if(OUTRIDER_SANITIZERS)
        target_compile_options(${target} PRIVATE -fsanitize=${OUTRIDER_SANITIZERS} -fno-omit-frame-pointer
                               -fno-sanitize-recover=undefined)
        target_link_options(${target} PRIVATE -fsanitize=${OUTRIDER_SANITIZERS})
    endif()
    if(BUILD_SHARED_LIBS)
        set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    endif()
endfunction()

# ATen costs 15 to 25 s a file without it. One precompiled header for every target that uses tensors.
function(outrider_use_aten target)
    outrider_settings(${target})
    target_link_libraries(${target} PRIVATE outrider::torch fmt::fmt)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND OUTRIDER_WERROR)
        # g++ 12 finds overflows in LibTorch's reference counts where it inlines them at -O3; there are none.
        target_compile_options(${target} PRIVATE -Wno-stringop-overflow)
    endif()
    if(BUILD_SHARED_LIBS)
        # Position-independent and other code cannot share one precompiled header: the same includes, the long way.
        target_compile_options(${target} PRIVATE "SHELL:-include ${PROJECT_SOURCE_DIR}/src/pch.hpp")
    else()
        target_compile_definitions(${target} PRIVATE OUTRIDER_COMPILED)  # as the precompiled header has it
        target_precompile_headers(${target} REUSE_FROM outrider_pch)
    endif()
endfunction()

# outrider_test(name SOURCES ... [LINK ...] [ATEN] [LABELS ...]): one Catch2 program, one ctest. LINK names the rooms
# (outrider_formats, outrider_kernels, outrider_target, ...) whose bodies it needs, or outrider for all.
function(outrider_test name)
    cmake_parse_arguments(arg "ATEN" "" "SOURCES;LINK;LABELS" ${ARGN})
    add_executable(${name} ${arg_SOURCES})
    if(arg_ATEN)
        outrider_use_aten(${name})
    else()
        outrider_settings(${name})
    endif()
    target_link_libraries(${name} PRIVATE outrider_core ${arg_LINK} Catch2::Catch2WithMain)
    target_compile_definitions(${name} PRIVATE OUTRIDER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    add_test(NAME ${name} COMMAND ${name} --allow-running-no-tests)
    set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" SKIP_RETURN_CODE 4)
endfunction()

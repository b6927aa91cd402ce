// Options that mean something only beside others. Given where they would be ignored, they are wrong usage.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

namespace outrider::cli {

/// Of one command, looked at once all of its options are read.
class Conditions {
public:
    explicit Conditions(CLI::App& app) : list_(std::make_shared<std::vector<Condition>>()) {
        app.parse_complete_callback([list = list_] {
            for (const Condition& it : *list)
                if (it.option->count() > 0 && !it.holds())
                    throw CLI::ValidationError(it.option->get_name(), it.otherwise());
        });
    }

    /// `option` may be given only where `holds`; `otherwise` says why not.
    CLI::Option* only_if(CLI::Option* option, std::function<bool()> holds, std::function<std::string()> otherwise) {
        list_->push_back({option, std::move(holds), std::move(otherwise)});
        return option;
    }

private:
    struct Condition {
        CLI::Option* option;
        std::function<bool()> holds;
        std::function<std::string()> otherwise;
    };
    std::shared_ptr<std::vector<Condition>> list_;  // outlives this object, in the app
};

}  // namespace outrider::cli
